package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"text/template"
)

// format is how a result is written.
type format string

// The formats. Each command has some of them.
const (
	ids     format = "id" // the first column alone, as Thanos' ls has it
	asTable format = "table"
	wide    format = "wide" // as Thanos' ls calls its table
	asJSON  format = "json"
	asTSV   format = "tsv"
	asCSV   format = "csv"
)

// template reads a format that is a Go template, as Thanos' ls takes it.
func (f format) template() (*template.Template, error) {
	t, err := template.New("output").Parse(string(f))
	if err != nil {
		return nil, fmt.Errorf("parse template: %w", err)
	}
	return t, nil
}

func (f format) isTemplate() bool { return strings.Contains(string(f), "{{") }

// table is a result: rows of cells for people, and the same as objects for programs.
type table struct {
	header  []string
	rows    [][]string
	objects []any
}

// add appends a row and the object that it is about.
func (t *table) add(object any, cells ...string) {
	t.objects = append(t.objects, object)
	t.rows = append(t.rows, cells)
}

// write renders the result. JSON is one object after another, as jq reads them.
func (f format) write(w io.Writer, t table) error {
	if t.header == nil {
		return nil
	}
	if f.isTemplate() {
		return f.execute(w, t)
	}
	switch f {
	case asJSON:
		enc := json.NewEncoder(w)
		enc.SetIndent("", "\t")
		for _, o := range t.objects {
			if err := enc.Encode(o); err != nil {
				return fmt.Errorf("write result: %w", err)
			}
		}
		return nil
	case asTSV:
		return lines(w, t)
	case asCSV:
		cw := csv.NewWriter(w)
		if err := cw.WriteAll(append([][]string{t.header}, t.rows...)); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
		return nil
	case ids:
		for _, row := range t.rows {
			if _, err := fmt.Fprintln(w, row[0]); err != nil {
				return fmt.Errorf("write result: %w", err)
			}
		}
		return nil
	case asTable, wide:
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if err := lines(tw, t); err != nil {
		return err
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// execute writes what a template makes of each object, a line each.
func (f format) execute(w io.Writer, t table) error {
	tmpl, err := f.template()
	if err != nil {
		return err
	}
	for _, o := range t.objects {
		if err := tmpl.Execute(w, o); err != nil {
			return fmt.Errorf("--output: %w", err)
		}
		if _, err := fmt.Fprintln(w); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	}
	return nil
}

// lines writes the cells of a row with tabs between them.
func lines(w io.Writer, t table) error {
	for _, row := range append([][]string{t.header}, t.rows...) {
		line := make([]string, len(row))
		for i, cell := range row {
			line[i] = oneLine(cell)
		}
		if _, err := fmt.Fprintln(w, strings.Join(line, "\t")); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	}
	return nil
}

// oneLine keeps a cell inside its cell.
func oneLine(cell string) string {
	return strings.NewReplacer("\t", " ", "\n", " ", "\r", " ").Replace(cell)
}
