// Package apilines reads and checks contracts of the API that are written as
// one line each:
//
//	POST /containers/web/pause 409 .message~'already paused'
//
// A line is a method, a path, what is sent, the status that must come back, and
// checks of the answer, separated by spaces:
//
//	METHOD PATH [+Header:VALUE…] [BODY] STATUS [CHECK…]
//
// BODY is JSON ({…} or […]) or any text in single quotes, where two quotes are
// one of the text. A body that is JSON
// is sent as application/json unless a header says otherwise. The checks:
//
//	.a.b[0]='text'    the value at that place of the JSON answer, as text
//	.a~'regexp'       the value matches
//	.a                the value is there (null counts as there)
//	!.a               the value is not there
//	header:Name~'re'  a header matches; = and presence work too
//	body~'regexp'     the whole answer matches; body='text' is exact
//
// Empty lines and lines that begin with # are skipped. The entry points are
// Parse and Line.Check.
package apilines

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// Line is one contract.
type Line struct {
	// Number of the line in its file, and its text.
	Number int
	Text   string

	Method, Path string
	Header       http.Header
	Body         string
	Status       int
	Checks       []Check
}

// Check is one thing that must be true of an answer.
type Check struct {
	// Subject is "body", "header:Name" or a place in JSON (".a[0]").
	Subject string
	// Operator is '=', '~', or 0 for presence and '!' for absence.
	Operator byte
	Value    string
}

// Parse reads a file of contracts.
func Parse(r io.Reader) ([]Line, error) {
	var out []Line
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<20)
	for n := 1; in.Scan(); n++ {
		text := strings.TrimSpace(in.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		line, err := parseLine(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		line.Number = n
		out = append(out, line)
	}
	return out, in.Err()
}

func parseLine(text string) (Line, error) {
	line := Line{Text: text, Header: http.Header{}}
	words, err := split(text)
	if err != nil {
		return line, err
	}
	if len(words) < 3 {
		return line, fmt.Errorf("%q: METHOD PATH STATUS are needed", text)
	}
	line.Method, line.Path = words[0], words[1]
	words = words[2:]
	for strings.HasPrefix(words[0], "+") {
		name, value, ok := strings.Cut(words[0][1:], ":")
		if !ok {
			return line, fmt.Errorf("%q: a header is +Name:value", words[0])
		}
		line.Header.Add(name, unquote(value))
		if words = words[1:]; len(words) == 0 {
			return line, fmt.Errorf("%q: the status is missing", text)
		}
	}
	if c := words[0][0]; c == '{' || c == '[' || c == '\'' {
		line.Body = unquote(words[0])
		if c != '\'' && line.Header.Get("Content-Type") == "" {
			line.Header.Set("Content-Type", "application/json")
		}
		if words = words[1:]; len(words) == 0 {
			return line, fmt.Errorf("%q: the status is missing", text)
		}
	}
	if line.Status, err = strconv.Atoi(words[0]); err != nil {
		return line, fmt.Errorf("%q is no status", words[0])
	}
	for _, word := range words[1:] {
		check, err := parseCheck(word)
		if err != nil {
			return line, err
		}
		line.Checks = append(line.Checks, check)
	}
	return line, nil
}

func parseCheck(word string) (Check, error) {
	if rest, ok := strings.CutPrefix(word, "!"); ok {
		return Check{Subject: rest, Operator: '!'}, nil
	}
	at := strings.IndexAny(word, "=~")
	if at < 0 {
		return Check{Subject: word}, nil
	}
	c := Check{Subject: word[:at], Operator: word[at], Value: unquote(word[at+1:])}
	if c.Operator == '~' {
		if _, err := regexp.Compile(c.Value); err != nil {
			return c, fmt.Errorf("%q: %w", word, err)
		}
	}
	return c, nil
}

func unquote(s string) string {
	if len(s) >= 2 && s[0] == '\'' && s[len(s)-1] == '\'' {
		return strings.ReplaceAll(s[1:len(s)-1], "''", "'")
	}
	return s
}

// split cuts at spaces outside of quotes and of JSON.
func split(text string) ([]string, error) {
	var words []string
	for text = strings.TrimLeft(text, " \t"); text != ""; text = strings.TrimLeft(text, " \t") {
		end := 0
		if text[0] == '{' || text[0] == '[' {
			dec := json.NewDecoder(strings.NewReader(text))
			var v json.RawMessage
			if err := dec.Decode(&v); err != nil {
				return nil, fmt.Errorf("%q: body: %w", text, err)
			}
			end = int(dec.InputOffset())
		} else {
			quoted := false
			for end < len(text) && (quoted || text[end] != ' ' && text[end] != '\t') {
				if text[end] == '\'' {
					quoted = !quoted
				}
				end++
			}
			if quoted {
				return nil, fmt.Errorf("%q: the quote is not closed", text)
			}
		}
		words = append(words, text[:end])
		text = text[end:]
	}
	return words, nil
}

// Request is the HTTP request of the line against a server; base is its URL
// without a slash at the end.
func (l Line) Request(base string) (*http.Request, error) {
	var body io.Reader
	if l.Body != "" {
		body = strings.NewReader(l.Body)
	}
	req, err := http.NewRequestWithContext(context.Background(), l.Method, base+l.Path, body)
	if err != nil {
		return nil, err
	}
	req.Header = l.Header.Clone()
	return req, nil
}

// Check compares an answer with the line and returns what is wrong with it,
// one sentence each.
func (l Line) Check(status int, header http.Header, body []byte) []string {
	var wrong []string
	if status != l.Status {
		wrong = append(wrong, fmt.Sprintf("status is %d, not %d", status, l.Status))
	}
	var doc any
	docErr := json.Unmarshal(body, &doc)
	for _, c := range l.Checks {
		var value string
		var there bool
		switch name, isHeader := strings.CutPrefix(c.Subject, "header:"); {
		case isHeader:
			value, there = header.Get(name), len(header.Values(name)) > 0
		case c.Subject == "body":
			value, there = string(body), len(body) > 0
		case docErr != nil:
			wrong = append(wrong, fmt.Sprintf("the answer is not JSON: %v", docErr))
			continue
		default:
			value, there = lookup(doc, c.Subject)
		}
		switch {
		case c.Operator == '!':
			if there {
				wrong = append(wrong, fmt.Sprintf("%s is there: %s", c.Subject, value))
			}
		case !there && c.Subject != "body":
			wrong = append(wrong, c.Subject+" is not there")
		case c.Operator == '=' && value != c.Value:
			wrong = append(wrong, fmt.Sprintf("%s is %q, not %q", c.Subject, value, c.Value))
		case c.Operator == '~' && !regexp.MustCompile(c.Value).MatchString(value):
			wrong = append(wrong, fmt.Sprintf("%s is %q, which does not match %q", c.Subject, value, c.Value))
		}
	}
	if len(wrong) > 0 {
		wrong = append(wrong, fmt.Sprintf("the answer was: %d %s", status, clip(body)))
	}
	return wrong
}

func clip(body []byte) string {
	const most = 2000
	if len(body) > most {
		return string(body[:most]) + "…"
	}
	return strings.TrimSpace(string(body))
}

// lookup finds a place like ".a.b[0]" and gives its value as text; objects and
// lists as JSON.
func lookup(doc any, place string) (string, bool) {
	for rest := place; rest != "" && rest != "."; {
		switch rest[0] {
		case '.':
			if strings.HasPrefix(rest, ".[") {
				rest = rest[1:]
				continue
			}
			end := 1
			for end < len(rest) && rest[end] != '.' && rest[end] != '[' {
				end++
			}
			fields, ok := doc.(map[string]any)
			if !ok {
				return "", false
			}
			if doc, ok = fields[rest[1:end]]; !ok {
				return "", false
			}
			rest = rest[end:]
		case '[':
			end := strings.IndexByte(rest, ']')
			if end < 0 {
				return "", false
			}
			inner := rest[1:end]
			rest = rest[end+1:]
			if fields, ok := doc.(map[string]any); ok { // a key with dots in it
				if doc, ok = fields[inner]; !ok {
					return "", false
				}
				continue
			}
			list, ok := doc.([]any)
			n, err := strconv.Atoi(inner)
			if !ok || err != nil || n < 0 || n >= len(list) {
				return "", false
			}
			doc = list[n]
		default:
			return "", false
		}
	}
	if text, ok := doc.(string); ok {
		return text, true
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		return "", false
	}
	return string(raw), true
}
