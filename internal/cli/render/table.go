package render

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// Format is what --format was given: "" or "table", "table TEMPLATE", "json", or a template per row.
type Format string

// The format keys with a meaning of their own, and the format of --quiet.
const (
	FormatTable Format = "table"
	FormatRaw   Format = "raw"
	FormatJSON  Format = "json"
	FormatID    Format = "{{.ID}}"
)

// IsTable reports whether the rows are aligned under headings.
func (f Format) IsTable() bool { return strings.HasPrefix(string(f), string(FormatTable)) }

// Template is the text executed for each row: without "table", with \t and \n as the characters they name.
func (f Format) Template() string {
	switch f {
	case FormatTable:
		return ""
	case FormatJSON:
		return "{{json .}}"
	}
	text := strings.Trim(strings.TrimPrefix(string(f), string(FormatTable)), " ")
	return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
}

// Header holds a table's headings by column.
type Header map[string]string

// Label is the heading of a column made with {{.Label "some.key-name"}}: the last part of the key.
func (Header) Label(key string) string {
	last := key[strings.LastIndexByte(key, '.')+1:]
	return strings.NewReplacer("-", " ", "_", " ").Replace(last)
}

// Table executes format for each row and writes the result to out, aligned under header when format is a table.
// Rows appear only when all of them could be written.
func Table[R any](out io.Writer, format Format, header Header, rows []R) error {
	t, err := Parse(format.Template())
	if err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	var body bytes.Buffer
	for _, row := range rows {
		if err := t.Execute(&body, row); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		body.WriteByte('\n')
	}
	if !format.IsTable() {
		_, err := body.WriteTo(out)
		return err
	}
	return align(out, t, header, &body)
}

func align(out io.Writer, t *template.Template, header Header, body *bytes.Buffer) error {
	var all bytes.Buffer
	// A function the template uses on a row may not fit a heading; the row's error is the one that counts.
	_ = t.Funcs(headerFunctions()).Execute(&all, header)
	all.WriteByte('\n')
	if _, err := body.WriteTo(&all); err != nil {
		return err
	}
	return Columnize(out, all.Bytes(), 10, 3)
}

// Columnize aligns tab-separated cells: columns at least minimum wide, padding blanks between them.
func Columnize(out io.Writer, cells []byte, minimum, padding int) error {
	wide := hasWide(cells)
	if wide {
		out = &fillerless{out}
		cells = fill(cells)
	}
	w := tabwriter.NewWriter(out, minimum, 1, padding, ' ', 0)
	if _, err := w.Write(cells); err != nil {
		return err
	}
	return w.Flush()
}

// filler is put after each character that takes two columns on a terminal, because tabwriter counts characters; it
// is from a private use area and is taken out again on the way to the terminal.
const filler = '\U0010FFFD'

func hasWide(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if displayWidth(r) > 1 {
			return true
		}
		b = b[n:]
	}
	return false
}

func fill(b []byte) []byte {
	var out []byte
	for _, r := range string(b) {
		out = utf8.AppendRune(out, r)
		if displayWidth(r) > 1 {
			out = utf8.AppendRune(out, filler)
		}
	}
	return out
}

// fillerless drops the fillers from what is written to it; tabwriter writes whole cells.
type fillerless struct{ out io.Writer }

func (f *fillerless) Write(p []byte) (int, error) {
	if _, err := f.out.Write(bytes.ReplaceAll(p, []byte(string(filler)), nil)); err != nil {
		return 0, err
	}
	return len(p), nil
}

func displayWidth(r rune) int {
	if r < 0x1100 {
		return 1
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// Ellipsis shortens text to at most columns on a terminal, the last of them "…".
func Ellipsis(s string, columns int) string {
	if columns <= 0 {
		return ""
	}
	total := 0
	for _, r := range s {
		total += displayWidth(r)
	}
	if total <= columns {
		return s
	}
	used := 0
	for i, r := range s {
		used += displayWidth(r)
		if columns > 1 && used > columns-1 {
			return s[:i] + "…"
		}
		if columns == 1 {
			return string(r)
		}
	}
	return s
}

// ShortID is the 12 characters of an id, without a digest's algorithm.
func ShortID(id string) string {
	if _, rest, ok := strings.Cut(id, ":"); ok {
		id = rest
	}
	if len(id) > 12 {
		id = id[:12]
	}
	return id
}
