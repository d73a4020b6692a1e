package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
)

// entry is a command of the table: its name, and what builds it. A group builds its own table with subgroup.
type entry struct {
	name    string
	aliases []string
	build   func(*app) *cobra.Command
}

// commands is the whole grammar below the root. Each group's table stands in the file of its object.
func commands() []entry {
	return []entry{
		{"attach", nil, (*app).attachCommand},
		{"build", nil, (*app).buildCommand},
		{"builder", nil, (*app).builderGroup},
		{"container", nil, (*app).containerGroup},
		{"context", nil, (*app).contextGroup},
		{"cp", nil, (*app).copyCommand},
		{"create", nil, (*app).createCommand},
		{"diff", nil, (*app).diffCommand},
		{"events", nil, (*app).eventsCommand},
		{"exec", nil, (*app).execCommand},
		{"export", nil, (*app).exportCommand},
		{"history", nil, (*app).historyCommand},
		{"image", nil, (*app).imageGroup},
		{"images", nil, (*app).imagesCommand},
		{"import", nil, (*app).importCommand},
		{"info", nil, (*app).infoCommand},
		{"inspect", nil, (*app).inspectCommand},
		{"kill", nil, (*app).killCommand},
		{"load", nil, (*app).loadCommand},
		{"login", nil, (*app).loginCommand},
		{"logout", nil, (*app).logoutCommand},
		{"logs", nil, (*app).logsCommand},
		{"network", nil, (*app).networkGroup},
		{"pause", nil, (*app).pauseCommand},
		{"port", nil, (*app).portCommand},
		{"ps", nil, (*app).psCommand},
		{"pull", nil, (*app).pullCommand},
		{"push", nil, (*app).pushCommand},
		{"rename", nil, (*app).renameCommand},
		{"restart", nil, (*app).restartCommand},
		{"rm", nil, (*app).rmCommand},
		{"rmi", nil, (*app).rmiCommand},
		{"run", nil, (*app).runCommand},
		{"save", nil, (*app).saveCommand},
		{"start", nil, (*app).startCommand},
		{"stats", nil, (*app).statsCommand},
		{"stop", nil, (*app).stopCommand},
		{"system", nil, (*app).systemGroup},
		{"tag", nil, (*app).tagCommand},
		{"top", nil, (*app).topCommand},
		{"unpause", nil, (*app).unpauseCommand},
		{"update", nil, (*app).updateCommand},
		{"version", nil, (*app).versionCommand},
		{"wait", nil, (*app).waitCommand},
	}
}

// addCommands gives root the command that was asked for, or all of them when it may be any: for help, for shell
// completion, and for a word that no command has.
func (a *app) addCommands(root *cobra.Command) error {
	words, err := a.expandAlias()
	if err != nil {
		return err
	}
	a.rest = words
	if version, _ := root.Flags().GetBool("version"); len(words) == 0 && version {
		return nil
	}
	a.addWanted(root, commands(), a.rest)
	return nil
}

// addWanted adds the entry named by the first word, else all.
func (a *app) addWanted(to *cobra.Command, table []entry, words []string) {
	if len(words) > 0 {
		for _, e := range table {
			if e.is(words[0]) {
				to.AddCommand(e.build(a))
				return
			}
		}
	}
	for _, e := range table {
		to.AddCommand(e.build(a))
	}
}

func (e entry) is(word string) bool {
	if e.name == word {
		return true
	}
	for _, alias := range e.aliases {
		if alias == word {
			return true
		}
	}
	return false
}

// group is a command that only has subcommands.
func (a *app) group(name, short string, table []entry) *cobra.Command {
	cmd := &cobra.Command{
		Use: name, Short: short, Args: noArgs, RunE: a.showHelp,
		DisableFlagsInUseLine: true,
	}
	var words []string
	if len(a.rest) > 1 && a.rest[0] == name {
		words = a.rest[1:]
	}
	a.addWanted(cmd, table, words)
	return cmd
}

// expandAlias replaces a first word that the user's configuration defines as an alias of other words. Docker knows
// this for `builder`; an alias cannot replace another command.
func (a *app) expandAlias() ([]string, error) {
	if len(a.rest) == 0 || strings.HasPrefix(a.rest[0], "_") {
		return a.rest, nil
	}
	if a.rest[0] != "builder" {
		return a.rest, nil
	}
	if target, ok := a.configFile().Aliases["builder"]; ok {
		if target == "" {
			return nil, errors.New(`alias "builder" is empty`)
		}
		return append(strings.Fields(target), a.rest[1:]...), nil
	}
	return a.rest, nil
}
