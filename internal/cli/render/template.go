// Package render writes what the commands print: Go templates with Docker's functions, tables with Docker's column
// widths, and the output of the inspect commands.
//
// Entry points: Table prints rows of one kind by a Format; Inspect looks objects up and prints them; Parse returns a
// template for everything else. A row is a pointer to a struct whose exported methods are the columns; Columns turns
// it into the JSON object that `--format json` prints. Nothing here is shared between goroutines.
package render

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"text/template"
	"unicode"
)

// Parse compiles a template with Docker's functions.
func Parse(text string) (*template.Template, error) {
	return template.New("").Funcs(functions()).Parse(text)
}

// Named is Parse for a template whose name shows in error texts.
func Named(name, text string, more template.FuncMap) (*template.Template, error) {
	return template.New(name).Funcs(functions()).Funcs(more).Parse(text)
}

func functions() template.FuncMap {
	return template.FuncMap{
		"json":  JSON,
		"split": strings.Split,
		"join":  join,
		"title": title,
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"pad":   pad,
		"truncate": func(s string, n int) string {
			if len(s) < n {
				return s
			}
			return s[:n]
		},
	}
}

// headerFunctions let the heading of a column through unchanged where the row's function would rewrite it.
func headerFunctions() template.FuncMap {
	same := func(s string) string { return s }
	same2 := func(s, _ string) string { return s }
	return template.FuncMap{
		"json": same, "title": same, "lower": same, "upper": same, "split": same2, "join": same2,
		"truncate": func(s string, _ int) string { return s },
	}
}

// JSON encodes v on one line without escaping <, > and &.
func JSON(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSpace(b.String()), nil
}

// title raises the first letter of each word; text here is names and states, so ASCII rules do.
func title(s string) string {
	start := true
	return strings.Map(func(r rune) rune {
		letter := unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' || r == '\''
		if start && letter {
			r = unicode.ToTitle(r)
		}
		start = !letter
		return r
	}, s)
}

// pad adds blanks around text that is not empty.
func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
}

// join puts the elements of a slice, or the values of a map in alphabetical order, together.
func join(list any, sep string) (string, error) {
	if list == nil {
		return "", nil
	}
	if texts, ok := list.([]string); ok {
		return strings.Join(texts, sep), nil
	}
	v := reflect.ValueOf(list)
	var texts []string
	switch v.Kind() {
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			texts = append(texts, fmt.Sprint(v.Index(i).Interface()))
		}
	case reflect.Map:
		for _, k := range v.MapKeys() {
			texts = append(texts, fmt.Sprint(v.MapIndex(k).Interface()))
		}
		slices.Sort(texts)
	default:
		return "", fmt.Errorf("expected slice, got %T", list)
	}
	return strings.Join(texts, sep), nil
}

// Columns encodes a row as an object with one member per column: each exported method without arguments and with
// one result. A row's MarshalJSON calls it.
func Columns(row any) ([]byte, error) {
	v := reflect.ValueOf(row)
	columns := make(map[string]any, v.NumMethod())
	for i := range v.NumMethod() {
		if m := v.Type().Method(i); m.Type.NumIn() == 1 && m.Type.NumOut() == 1 {
			columns[m.Name] = v.Method(i).Call(nil)[0].Interface()
		}
	}
	return json.Marshal(columns)
}
