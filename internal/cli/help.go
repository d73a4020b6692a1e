package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/term"
	"github.com/spf13/cobra"
)

// Annotations that shape help texts.
const (
	annTop     = "category-top" // rank among the common commands of the root
	annSwarm   = "swarm"        // listed under Swarm Commands
	annAliases = "aliases"      // all spellings, without the program's name
)

// showHelp prints a command's help to stderr: the answer to a group called without a subcommand.
func (a *app) showHelp(cmd *cobra.Command, _ []string) error {
	cmd.SetOut(a.stderr)
	return cmd.Help()
}

// helpCommand is `help [COMMAND…]`.
func (a *app) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "help [command]",
		Short:             "Help about the command",
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE: func(c *cobra.Command, args []string) error {
			cmd, rest, err := c.Root().Find(args)
			if cmd == nil || err != nil || len(rest) > 0 {
				if len(args) > 0 {
					if ran, err := a.runPlugin(c.Context(), args[0], append(slices.Clone(args), "--help")); ran {
						return err
					}
				}
				return fmt.Errorf("unknown help topic: %v", strings.Join(args, " "))
			}
			return cmd.Help()
		},
	}
}

func (a *app) help(cmd *cobra.Command, _ []string) {
	if !cmd.HasParent() {
		a.addPluginStubs(cmd)
	}
	if cmd.Context() == nil {
		cmd.SetContext(cmd.Root().Context())
	}
	a.hideUnsupported(cmd)
	if cmd.Runnable() || cmd.HasSubCommands() {
		fmt.Fprint(cmd.OutOrStdout(), a.usageText(cmd))
	}
}

func (a *app) usage(cmd *cobra.Command) error {
	_, err := fmt.Fprint(cmd.OutOrStderr(), a.usageText(cmd))
	return err
}

// usageText is the whole help of a command.
func (a *app) usageText(cmd *cobra.Command) string {
	var b strings.Builder
	b.WriteString("Usage:")
	if cmd.HasSubCommands() {
		b.WriteString("  " + cmd.CommandPath())
		if cmd.HasAvailableFlags() {
			b.WriteString(" [OPTIONS]")
		}
		b.WriteString(" COMMAND")
	} else {
		b.WriteString("  " + cmd.UseLine())
	}
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	b.WriteString("\n\n" + strings.TrimSpace(about))
	if cmd.Annotations["experimentalCLI"] != "" {
		b.WriteString("\n\nEXPERIMENTAL:\n  " + cmd.CommandPath() + " is an experimental feature.\n")
	}
	if aliases := a.aliases(cmd); aliases != "" {
		b.WriteString("\n\nAliases:\n  " + aliases)
	}
	if cmd.HasExample() {
		b.WriteString("\n\nExamples:\n" + cmd.Example)
	}
	if cmd.HasParent() && cmd.HasAvailableFlags() {
		b.WriteString("\n\nOptions:\n" + flagUsages(cmd))
	}
	for _, section := range sections(cmd) {
		if len(section.commands) == 0 {
			continue
		}
		b.WriteString("\n\n" + section.title + ":")
		for _, c := range section.commands {
			mark := " "
			if isPlugin(c) {
				mark = "*"
			}
			fmt.Fprintf(&b, "\n  %-*s%s", c.NamePadding()+1, c.Name()+mark, c.Short)
		}
	}
	if !cmd.HasParent() && cmd.HasAvailableFlags() {
		b.WriteString("\n\nGlobal Options:\n" + flagUsages(cmd))
	}
	if cmd.HasSubCommands() {
		b.WriteString("\n\nRun '" + cmd.CommandPath() + " COMMAND --help' for more information on a command.")
	}
	if !cmd.HasParent() {
		b.WriteString("\n\n" + a.bold(a.moreHelp()) + "\n")
	}
	b.WriteString("\n")
	return b.String()
}

func (a *app) moreHelp() string {
	if a.name == "docker" {
		return "For more help on how to use Docker, head to https://docs.docker.com/go/guides/"
	}
	return "Orlop's commands are Docker's: https://docs.docker.com/reference/cli/docker/ describes them in full."
}

func (a *app) bold(text string) string {
	if !a.stdout.terminal {
		return text
	}
	return "\x1b[1m" + text + "\x1b[0m"
}

func (a *app) aliases(cmd *cobra.Command) string {
	if all := cmd.Annotations[annAliases]; all != "" {
		spellings := strings.Split(all, ", ")
		for i := range spellings {
			spellings[i] = a.name + " " + spellings[i]
		}
		return strings.Join(spellings, ", ")
	}
	if len(cmd.Aliases) == 0 {
		return ""
	}
	text := cmd.CommandPath()
	for _, alias := range cmd.Aliases {
		text += ", " + cmd.Parent().CommandPath() + " " + alias
	}
	return text
}

func flagUsages(cmd *cobra.Command) string {
	width := 80
	if ws, err := term.GetWinsize(0); err == nil {
		width = int(ws.Width)
	}
	return strings.TrimRight(cmd.Flags().FlagUsagesWrapped(width-1), " \n")
}

type section struct {
	title    string
	commands []*cobra.Command
}

// sections sorts the subcommands: at the root the common ones by rank and groups by kind, everywhere the rest.
func sections(cmd *cobra.Command) []section {
	var top, management, swarm, plain []*cobra.Command
	for _, c := range cmd.Commands() {
		_, ranked := c.Annotations[annTop]
		switch {
		case !c.IsAvailableCommand():
		case !cmd.HasParent() && ranked && !isPlugin(c):
			top = append(top, c)
		case c.HasSubCommands() || isPlugin(c) || c.Name() == "builder":
			if _, ok := c.Annotations[annSwarm]; ok {
				swarm = append(swarm, c)
			} else {
				management = append(management, c)
			}
		default:
			plain = append(plain, c)
		}
	}
	slices.SortStableFunc(top, func(x, y *cobra.Command) int {
		return len(x.Annotations[annTop])*100 + int(last(x.Annotations[annTop])) - len(y.Annotations[annTop])*100 - int(last(y.Annotations[annTop]))
	})
	return []section{{"Common Commands", top}, {"Management Commands", management}, {"Swarm Commands", swarm}, {"Commands", plain}}
}

// last is the last digit of a rank; a longer rank is a higher one, as numbers go.
func last(rank string) byte { return rank[len(rank)-1] }

func isPlugin(c *cobra.Command) bool { return c.Annotations[annPlugin] == "true" }
