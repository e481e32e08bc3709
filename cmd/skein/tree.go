package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// branch is a span where it hangs in the tree.
type branch struct {
	span *traceSpan
	lead string // lines that lead to its name
	rest string // lines that go on below it
	lost bool   // its parent is not among the spans
}

// tree lays spans out: parents before children, each in the order of their starts.
func (t *trace) tree() []branch {
	known := map[spanID]bool{}
	for _, s := range t.spans {
		known[s.ID] = true
	}
	children := map[spanID][]*traceSpan{}
	for _, s := range t.spans {
		parent := s.Parent
		if !known[parent] || parent == s.ID {
			parent = ""
		}
		children[parent] = append(children[parent], s)
	}
	for _, list := range children {
		slices.SortStableFunc(list, func(a, b *traceSpan) int { return cmp.Compare(a.Start, b.Start) })
	}
	var all []branch
	drawn := map[*traceSpan]bool{}
	var walk func(s *traceSpan, lead, rest string)
	walk = func(s *traceSpan, lead, rest string) {
		below := children[s.ID]
		delete(children, s.ID) // a span sent twice must not have its children drawn twice
		drawn[s] = true
		all = append(all, branch{span: s, lead: lead, rest: rest, lost: s.Parent != "" && !known[s.Parent]})
		for i, c := range below {
			if i == len(below)-1 {
				walk(c, rest+"└─ ", rest+"   ")
			} else {
				walk(c, rest+"├─ ", rest+"│  ")
			}
		}
	}
	for _, root := range children[""] {
		walk(root, "", "")
	}
	for _, s := range t.spans { // a circle of parents has no root
		if !drawn[s] {
			walk(s, "", "")
		}
	}
	return all
}

// Columns of the drawing; names get what the terminal has left.
const (
	leastName, mostName = 24, 60
	barWidth            = 24
)

func (a *app) drawTrace(t *trace) error {
	rows := t.tree()
	began, ended := rows[0].span.Start, rows[0].span.End
	nameWidth, serviceWidth := 0, len("SERVICE")
	for _, b := range rows {
		began, ended = min(began, b.span.Start), max(ended, b.span.End)
		nameWidth = max(nameWidth, width(b.lead+b.name()))
		serviceWidth = max(serviceWidth, width(printable(b.span.Service)))
	}
	const fixed = 2 + 2 + 9 + 2 + 9 + 2 + barWidth
	room := max(a.width()-fixed-serviceWidth, leastName)
	nameWidth = min(nameWidth, mostName, room)

	w := a.stdout
	whole := time.Duration(ended - began)
	_, _ = fmt.Fprintf(w, "trace %s  %d spans  %s\n\n", t.id, len(rows), duration(whole))
	_, _ = fmt.Fprintf(w, "%s  %s  %9s  %9s\n", pad("SPAN", nameWidth), pad("SERVICE", serviceWidth), "START", "TOOK")
	for _, b := range rows {
		s := b.span
		_, err := fmt.Fprintf(w, "%s  %s  %9s  %9s  %s\n", pad(clip(b.lead+b.name(), nameWidth), nameWidth),
			pad(printable(s.Service), serviceWidth), duration(time.Duration(s.Start-began)), duration(s.duration()),
			bar(s, began, whole))
		if err != nil {
			return err
		}
		if a.verbose {
			b.details(w, began)
		}
	}
	return nil
}

// name marks what failed and what hangs in the air.
func (b branch) name() string {
	name := printable(b.span.Name)
	if b.span.Status.Code {
		name = "✗ " + name
	}
	if b.lost {
		name += " (its parent is missing)"
	}
	return name
}

func (b branch) details(w io.Writer, began nanos) {
	line := func(text string) { _, _ = fmt.Fprintf(w, "%s    %s\n", b.rest, printable(text)) }
	if m := b.span.Status.Message; m != "" {
		line("status: " + m)
	}
	for _, attr := range b.span.Attrs {
		line(attr.String())
	}
	for _, e := range b.span.Events {
		texts := make([]string, len(e.Attrs))
		for i, attr := range e.Attrs {
			texts[i] = attr.String()
		}
		line(fmt.Sprintf("@%s %s %s", duration(time.Duration(e.Time-began)), e.Name, strings.Join(texts, " ")))
	}
}

// bar shows a span's part of the whole: at least one mark, however short it was.
func bar(s *traceSpan, began nanos, whole time.Duration) string {
	if whole <= 0 {
		return "▇"
	}
	at := func(t nanos) int { return int(float64(t-began) / float64(whole) * barWidth) }
	from := min(at(s.Start), barWidth-1)
	to := max(at(s.End), from+1)
	return strings.Repeat(" ", from) + strings.Repeat("▇", to-from)
}

func width(s string) int { return utf8.RuneCountInString(s) }

func pad(s string, to int) string { return s + strings.Repeat(" ", max(to-width(s), 0)) }

func clip(s string, to int) string {
	if width(s) <= to {
		return s
	}
	return string([]rune(s)[:to-1]) + "…"
}
