package cli

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"text/template"
	"time"

	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/orlop/orlop/internal/cli/render"
)

const versionTemplate = `{{with .Client -}}
Client:{{if ne .Platform nil}}{{if ne .Platform.Name ""}} {{.Platform.Name}}{{end}}{{end}}
 Version:	{{.Version}}
 API version:	{{.APIVersion}}{{if ne .APIVersion .DefaultAPIVersion}} (downgraded from {{.DefaultAPIVersion}}){{end}}
 Go version:	{{.GoVersion}}
 Git commit:	{{.GitCommit}}
 Built:	{{.BuildTime}}
 OS/Arch:	{{.Os}}/{{.Arch}}
 Context:	{{.Context}}
{{- end}}

{{- if ne .Server nil}}{{with .Server}}

Server:{{if ne .Platform.Name ""}} {{.Platform.Name}}{{end}}
 {{- range $component := .Components}}
 {{$component.Name}}:
  {{- if eq $component.Name "Engine" }}
  Version:	{{.Version}}
  API version:	{{index .Details "ApiVersion"}} (minimum version {{index .Details "MinAPIVersion"}})
  Go version:	{{index .Details "GoVersion"}}
  Git commit:	{{index .Details "GitCommit"}}
  Built:	{{index .Details "BuildTime"}}
  OS/Arch:	{{index .Details "Os"}}/{{index .Details "Arch"}}
  Experimental:	{{index .Details "Experimental"}}
  {{- else }}
  Version:	{{$component.Version}}
  {{- range $key := keys $component.Details}}
  {{$key}}:	{{index $component.Details $key}}
   {{- end}}
  {{- end}}
 {{- end}}
 {{- end}}{{- end}}`

// clientVersion is what a template sees under .Client; `info` shows it too.
type clientVersion struct {
	Platform          *platformName `json:"Platform,omitempty"`
	Version           string        `json:"Version,omitempty"`
	APIVersion        string        `json:"ApiVersion,omitempty"`
	DefaultAPIVersion string        `json:"DefaultAPIVersion,omitempty"`
	GitCommit         string        `json:"GitCommit,omitempty"`
	GoVersion         string        `json:"GoVersion,omitempty"`
	Os                string        `json:"Os,omitempty"`
	Arch              string        `json:"Arch,omitempty"`
	BuildTime         string        `json:"BuildTime,omitempty"`
	Context           string        `json:"Context"`
}

type platformName struct {
	Name string `json:"Name,omitempty"`
}

// serverVersion is what a template sees under .Server; the single fields repeat the component Engine, as older
// clients had them.
type serverVersion struct {
	Platform      client.PlatformInfo       `json:",omitempty"`
	Components    []system.ComponentVersion `json:"Components,omitempty"`
	Version       string                    `json:"Version"`
	APIVersion    string                    `json:"ApiVersion"`
	MinAPIVersion string                    `json:"MinAPIVersion,omitempty"`
	GitCommit     string                    `json:"GitCommit,omitempty"`
	GoVersion     string                    `json:"GoVersion,omitempty"`
	Os            string                    `json:"Os"`
	Arch          string                    `json:"Arch"`
	KernelVersion string                    `json:"KernelVersion,omitempty"`
	Experimental  bool                      `json:"Experimental,omitempty"`
	BuildTime     string                    `json:"BuildTime,omitempty"`
}

type bothVersions struct {
	Client clientVersion
	Server *serverVersion
}

func (a *app) versionCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:                   "version [OPTIONS]",
		Short:                 "Show the " + a.product + " version information",
		Args:                  noArgs,
		Annotations:           map[string]string{annTop: "10"},
		ValidArgsFunction:     cobra.NoFileCompletions,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch format {
			case "":
				format = versionTemplate
			case "json":
				format = "{{json .}}"
			}
			t, err := render.Named("version", format, template.FuncMap{
				"keys": func(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) },
			})
			if err != nil {
				return &statusError{code: 64, text: "template parsing error: " + err.Error()}
			}
			api, err := a.api()
			if err != nil {
				return err
			}
			// The server's part needs the daemon; without one the client's part is still shown.
			server, serverErr := api.ServerVersion(cmd.Context(), client.ServerVersionOptions{})
			v := bothVersions{Client: a.clientVersion()}
			v.Client.APIVersion = api.ClientVersion()
			if serverErr == nil {
				v.Server = newServerVersion(server)
			}
			if err := printVersion(a.stdout, t, v); err != nil && serverErr == nil {
				return err
			}
			return serverErr
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	return cmd
}

func printVersion(out io.Writer, t *template.Template, v bothVersions) error {
	var cells bytes.Buffer
	err := t.Execute(&cells, v)
	cells.WriteByte('\n')
	if printErr := render.Columnize(out, cells.Bytes(), 20, 1); err == nil {
		err = printErr
	}
	return err
}

func (a *app) clientVersion() clientVersion {
	return clientVersion{
		Version: a.version(), DefaultAPIVersion: client.MaxAPIVersion, GitCommit: a.commit(),
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH,
		BuildTime: readableTime(a.cfg.BuildTime), Context: a.currentContext(),
	}
}

// readableTime turns an RFC 3339 time into C's form; anything else stays as it is.
func readableTime(text string) string {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t.Format(time.ANSIC)
	}
	return text
}

func newServerVersion(v client.ServerVersionResult) *serverVersion {
	out := &serverVersion{
		Platform: v.Platform, Version: v.Version, APIVersion: v.APIVersion, MinAPIVersion: v.MinAPIVersion,
		Os: v.Os, Arch: v.Arch, Components: v.Components,
	}
	i := slices.IndexFunc(out.Components, func(c system.ComponentVersion) bool { return c.Name == "Engine" })
	if i < 0 {
		out.Components = append(out.Components, system.ComponentVersion{Name: "Engine", Version: v.Version, Details: map[string]string{
			"ApiVersion": v.APIVersion, "MinAPIVersion": v.MinAPIVersion, "Os": v.Os, "Arch": v.Arch,
		}})
		return out
	}
	d := out.Components[i].Details
	if d == nil {
		return out
	}
	out.GitCommit, out.GoVersion, out.KernelVersion, out.BuildTime = d["GitCommit"], d["GoVersion"], d["KernelVersion"], d["BuildTime"]
	if built, ok := d["BuildTime"]; ok {
		d["BuildTime"] = readableTime(built)
	}
	if experimental, err := strconv.ParseBool(d["Experimental"]); err == nil {
		out.Experimental = experimental
	}
	return out
}

// fprintIf prints a label and a value unless the value is empty.
func fprintIf(out io.Writer, label, value string) {
	if value != "" {
		fmt.Fprintln(out, label, value)
	}
}
