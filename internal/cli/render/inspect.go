package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/template"
)

// Lookup finds the object a reference names: its typed form for templates and the daemon's own bytes.
type Lookup func(ref string) (typed any, raw []byte, err error)

// BadFormatError is a --format that does not parse.
type BadFormatError struct{ err error }

func (e *BadFormatError) Error() string { return "template parsing error: " + e.err.Error() }

// Unwrap returns the parser's error.
func (e *BadFormatError) Unwrap() error { return e.err }

// Inspect prints the objects that refs name, as an indented JSON array, as a compact one (format "json") or one line
// per object by a template. Objects that were found are printed even when others were not; the errors come back
// joined. A template that does not fit the typed object is tried on the JSON as it came, so that members our types do
// not know can be reached.
func Inspect(out io.Writer, refs []string, format string, lookup Lookup) error {
	var t *template.Template
	if format != "" && format != "json" {
		var err error
		if t, err = Parse(format); err != nil {
			return &BadFormatError{err}
		}
	}
	var errs []error
	var objects [][]byte
	var lines bytes.Buffer
	for _, ref := range refs {
		typed, raw, err := lookup(ref)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if t == nil {
			objects = append(objects, raw)
			continue
		}
		if err := executeEither(&lines, t, typed, raw); err != nil {
			errs = append(errs, err)
		}
	}
	if err := writeObjects(out, t != nil, format, objects, &lines); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func executeEither(lines *bytes.Buffer, t *template.Template, typed any, raw []byte) error {
	var line bytes.Buffer
	err := t.Execute(&line, typed)
	if err != nil && raw != nil {
		var object any
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&object); err != nil {
			return fmt.Errorf("unable to read inspect data: %w", err)
		}
		line.Reset()
		err = t.Option("missingkey=error").Execute(&line, object)
	}
	if err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	lines.Write(line.Bytes())
	lines.WriteByte('\n')
	return nil
}

func writeObjects(out io.Writer, templated bool, format string, objects [][]byte, lines *bytes.Buffer) error {
	if templated {
		if lines.Len() == 0 {
			lines.WriteByte('\n')
		}
		_, err := lines.WriteTo(out)
		return err
	}
	all := append([]byte{'['}, bytes.Join(objects, []byte{','})...)
	all = append(all, ']')
	var text bytes.Buffer
	var err error
	if format == "json" {
		err = json.Compact(&text, all)
	} else {
		err = json.Indent(&text, all, "", "    ")
	}
	if err != nil {
		return fmt.Errorf("unable to read inspect data: %w", err)
	}
	text.WriteByte('\n')
	_, err = text.WriteTo(out)
	return err
}
