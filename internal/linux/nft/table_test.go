package nft

import (
	"strings"
	"testing"

	"github.com/google/nftables"
)

func sample(elements ...string) Table {
	t := Table{
		Name: "t",
		Sets: []Set{{Name: "ports", Key: []nftables.SetDatatype{TypeProto, TypeService}, Value: []nftables.SetDatatype{TypeIPv4, TypeService}}},
		Chains: []Chain{{
			Name:  "forward",
			Hook:  &Hook{Type: nftables.ChainTypeFilter, Hook: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter},
			Rules: []Rule{{Comment: "first", Text: "accept", Exprs: Accept()}, {Comment: "second", Text: "drop", Exprs: Drop()}},
		}},
	}
	for _, e := range elements {
		key, value, _ := strings.Cut(e, "=")
		t.Sets[0].Elements = append(t.Sets[0].Elements, Element{Key: []byte(key), Value: []byte(value)})
	}
	return t
}

// kernel is what the kernel would show of a table.
func kernel(t Table) Observed {
	o := Observed{Exists: true, layout: t.layout(), sets: map[string][]Element{}}
	for _, s := range t.Sets {
		o.sets[s.Name] = s.Elements
	}
	return o
}

func TestPlanIsEmptyForWhatIsThere(t *testing.T) {
	if p := NewPlan(sample("a=1", "b=2"), kernel(sample("b=2", "a=1"))); !p.Empty() || p.String() != "" {
		t.Errorf("plan: %s", p)
	}
}

func TestPlanChangesElementsOnlyWhenRulesAreEqual(t *testing.T) {
	got := NewPlan(sample("a=1", "b=3", "c=4"), kernel(sample("a=1", "b=2", "d=5"))).String()
	want := "delete element ports { 62 }\ndelete element ports { 64 }\nadd element ports { 62 : 33 }\nadd element ports { 63 : 34 }\n"
	if got != want {
		t.Errorf("plan:\n%s\nwant:\n%s", got, want)
	}
}

func TestPlanReplacesATableThatDiffers(t *testing.T) {
	changed := sample()
	changed.Chains[0].Rules[0].Text = "drop"
	swapped := sample()
	swapped.Chains[0].Rules[0], swapped.Chains[0].Rules[1] = swapped.Chains[0].Rules[1], swapped.Chains[0].Rules[0]
	extra := kernel(sample())
	extra.layout = append(extra.layout, "rule forward without comment")
	for name, c := range map[string]struct {
		got Observed
		why string
	}{
		"no table":        {Observed{}, "the table does not exist"},
		"a rule changed":  {kernel(changed), "missing: rule forward first #"},
		"rules swapped":   {kernel(swapped), "the order of rules differs"},
		"somebody's rule": {extra, "unknown: rule forward without comment"},
	} {
		t.Run(name, func(t *testing.T) {
			got := NewPlan(sample(), c.got).String()
			if !strings.HasPrefix(got, "replace table inet t: ") || !strings.Contains(got, c.why) {
				t.Errorf("plan: %s, want %q", got, c.why)
			}
		})
	}
}
