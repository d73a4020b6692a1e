package httpapi

import "strings"

// routeTable finds the route of a request. Routes are tried in the order of the
// table, as in Docker's router, so a literal path stands before the pattern
// that would match it too.
type routeTable struct {
	// byFirst holds the routes of a first path segment ("containers"); a
	// pattern that begins with a variable stands under "".
	byFirst map[string][]compiledRoute
}

type compiledRoute struct {
	*Route
	// literals are the texts around the variables: one more than variables.
	literals []string
}

func newRouteTable(routes []Route) routeTable {
	t := routeTable{byFirst: map[string][]compiledRoute{}}
	for i := range routes {
		c := compiledRoute{Route: &routes[i]}
		rest := routes[i].Path
		for {
			before, after, found := strings.Cut(rest, "{")
			c.literals = append(c.literals, before)
			if !found {
				break
			}
			_, rest, _ = strings.Cut(after, "}")
		}
		first := firstSegment(c.literals[0])
		t.byFirst[first] = append(t.byFirst[first], c)
	}
	return t
}

// find returns the route and the values of its variables, or nil.
func (t routeTable) find(method, path string) (*Route, []string) {
	for _, first := range []string{firstSegment(path), ""} {
		for _, c := range t.byFirst[first] {
			if c.Method != method {
				continue
			}
			if vars, ok := c.match(path); ok {
				return c.Route, vars
			}
		}
	}
	return nil, nil
}

// match compares a path with the pattern. A variable takes any text, slashes
// too (names of images have them); of two variables the first takes all it can.
func (c compiledRoute) match(path string) ([]string, bool) {
	last := len(c.literals) - 1
	if last == 0 {
		return nil, path == c.literals[0]
	}
	rest, ok := strings.CutPrefix(path, c.literals[0])
	if !ok {
		return nil, false
	}
	if rest, ok = strings.CutSuffix(rest, c.literals[last]); !ok {
		return nil, false
	}
	vars := make([]string, last)
	for i := last - 1; i > 0; i-- {
		at := strings.LastIndex(rest, c.literals[i])
		if at < 0 {
			return nil, false
		}
		rest, vars[i] = rest[:at], rest[at+len(c.literals[i]):]
	}
	vars[0] = rest
	return vars, true
}

func firstSegment(path string) string {
	path = strings.TrimPrefix(path, "/")
	first, _, _ := strings.Cut(path, "/")
	return first
}
