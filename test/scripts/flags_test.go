package scripts

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/orlop/orlop/internal/cli/creation"
)

// Of run alone, or of run and create beside what describes the container.
var runFlags = []string{"detach", "detach-keys", "sig-proxy", "name", "platform", "pull", "quiet", "use-api-socket"}

// shownElsewhere are flags whose effect is shown by another script.
var shownElsewhere = map[string]string{
	"log-driver": "log-options.txtar",
	"log-opt":    "log-options.txtar",
}

// Every flag of run and create is in a script that shows what it does, or that it
// is refused. kernel-memory does nothing in Docker either, and says so.
func TestEveryFlagOfRunIsShownByItsEffect(t *testing.T) {
	files, err := filepath.Glob("testdata/run-flags-*.txtar")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	var all strings.Builder
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	commands := regexp.MustCompile(`(?m)^.*(\srun|\screate|\$run|look) .*$`).FindAllString(all.String(), -1)
	text := strings.Join(commands, "\n")
	shown := func(text, name, short string) bool {
		if strings.Contains(text, " --"+name+" ") || strings.Contains(text, " --"+name+"=") {
			return true
		}
		if short == "" {
			return false
		}
		// Also among others: "-di", and with its value: "-p80".
		return regexp.MustCompile(` -[a-zA-Z]*` + short + `[ a-zA-Z]`).MatchString(text)
	}
	set := pflag.NewFlagSet("run", pflag.ContinueOnError)
	creation.AddFlags(set)
	for _, name := range runFlags {
		set.Bool(name, false, "")
	}
	set.Lookup("detach").Shorthand, set.Lookup("quiet").Shorthand = "d", "q"
	set.VisitAll(func(f *pflag.Flag) {
		where, else_ := shownElsewhere[f.Name]
		if else_ {
			other, err := os.ReadFile(filepath.Join("testdata", where))
			if err != nil || !shown(string(other), f.Name, f.Shorthand) {
				t.Errorf("--%s is not in %s (%v)", f.Name, where, err)
			}
			return
		}
		if !shown(text, f.Name, f.Shorthand) && f.Deprecated == "" {
			t.Errorf("no script shows what --%s does", f.Name)
		}
	})
}
