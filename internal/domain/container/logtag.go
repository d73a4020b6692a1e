package container

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"text/template"
	"time"
)

// LogInfo is what the template of the log option "tag" is executed with: its
// fields and methods are those that Docker documents and users write.
type LogInfo struct {
	Config              map[string]string
	ContainerID         string
	ContainerName       string // with its slash
	ContainerEntrypoint string
	ContainerArgs       []string
	ContainerImageID    string
	ContainerImageName  string
	ContainerCreated    time.Time
	ContainerEnv        []string
	ContainerLabels     map[string]string
	LogPath             string
	DaemonName          string

	hostname string
}

// NewLogInfo describes a container for its log. hostname is the machine's.
func NewLogInfo(id, name, hostname, logPath string, s *Saved) LogInfo {
	program, args := Command(s.Config)
	return LogInfo{
		ContainerID: id, ContainerName: "/" + name, ContainerEntrypoint: program, ContainerArgs: args,
		ContainerImageID: s.Image.ID.String(), ContainerImageName: s.Config.Image, ContainerCreated: s.Created,
		ContainerEnv: Environment(s.Config, s.Config.Tty), ContainerLabels: s.Config.Labels,
		LogPath: logPath, DaemonName: "docker", hostname: hostname,
	}
}

// ExtraAttributes are the labels and variables that the options labels,
// labels-regex, env and env-regex choose. keyMod, unless nil, changes the names.
func (i *LogInfo) ExtraAttributes(keyMod func(string) string) (map[string]string, error) {
	env := map[string]string{}
	for _, e := range i.ContainerEnv {
		if k, v, ok := strings.Cut(e, "="); ok {
			env[k] = v
		}
	}
	attrs := map[string]string{}
	add := func(key, value string) {
		if keyMod != nil {
			key = keyMod(key)
		}
		attrs[key] = value
	}
	for _, from := range []struct {
		values        map[string]string
		names, regexp string
	}{{i.ContainerLabels, "labels", "labels-regex"}, {env, "env", "env-regex"}} {
		for name := range strings.SplitSeq(i.Config[from.names], ",") {
			if v, ok := from.values[name]; ok {
				add(name, v)
			}
		}
		if i.Config[from.regexp] == "" {
			continue
		}
		re, err := regexp.Compile(i.Config[from.regexp])
		if err != nil {
			return nil, err
		}
		for name, v := range from.values {
			if re.MatchString(name) {
				add(name, v)
			}
		}
	}
	return attrs, nil
}

// Command is the entry point with its arguments.
func (i *LogInfo) Command() string {
	return strings.Join(append([]string{i.ContainerEntrypoint}, i.ContainerArgs...), " ")
}

// ID is the short id.
func (i *LogInfo) ID() string { return ShortID(i.ContainerID) }

// FullID is the whole id.
func (i *LogInfo) FullID() string { return i.ContainerID }

// Name is the name without its slash.
func (i *LogInfo) Name() string { return strings.TrimPrefix(i.ContainerName, "/") }

// ImageID is the short id of the image.
func (i *LogInfo) ImageID() string { return ShortID(i.ContainerImageID) }

// ImageFullID is the whole id of the image.
func (i *LogInfo) ImageFullID() string { return i.ContainerImageID }

// ImageName is what the container was created from.
func (i *LogInfo) ImageName() string { return i.ContainerImageName }

// Hostname is the machine's name.
func (i *LogInfo) Hostname() (string, error) { return i.hostname, nil }

// tag executes the template of a tag.
func (i *LogInfo) tag(text string) (string, error) {
	t, err := template.New("log-tag").Funcs(template.FuncMap{
		"json": func(v any) string {
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			_ = e.Encode(v) // a template has nothing that cannot be encoded
			return strings.TrimSpace(b.String())
		},
		"split": strings.Split,
		"join":  strings.Join,
		"title": title,
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"pad": func(s string, before, after int) string {
			if s == "" {
				return ""
			}
			return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
		},
		"truncate": func(s string, n int) string { return s[:min(len(s), n)] },
	}).Parse(text)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, i); err != nil {
		return "", err
	}
	return b.String(), nil
}

// title begins every word with a capital.
func title(s string) string {
	out, start := []rune(s), true
	for i, r := range out {
		if start {
			out[i] = []rune(strings.ToTitle(string(r)))[0]
		}
		start = strings.ContainsRune(" \t\n-", r)
	}
	return string(out)
}
