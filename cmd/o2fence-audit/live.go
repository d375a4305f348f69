// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"github.com/o2fence/o2fence/bpf/verdict"
)

// live runs do, and shows meanwhile what it has shown. Who ends the view ends do: its context.
func live(ctx context.Context, do func(ctx context.Context, show func(*verdict.Report)) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	view := tea.NewProgram(&liveView{started: time.Now(), end: cancel}, tea.WithoutSignalHandler())
	done := make(chan error, 1)
	go func() {
		err := do(ctx, func(r *verdict.Report) { view.Send(r) })
		view.Quit()
		done <- err
	}()
	_, err := view.Run()
	cancel() // a view that failed ends the audit as well
	return errors.Join(<-done, err)
}

// A liveView is what is on the terminal.
type liveView struct {
	started       time.Time
	end           func()
	report        *verdict.Report // nil: nothing yet
	width, height int
}

// Init does nothing: reports come by themselves.
func (v *liveView) Init() tea.Cmd { return nil }

// Update takes a report, the terminal's size, or a key.
func (v *liveView) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case *verdict.Report:
		v.report = msg
	case tea.WindowSizeMsg:
		v.width, v.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		if key := msg.String(); key == "q" || key == "ctrl+c" {
			v.end()
		}
	}
	return v, nil
}

var classStyle = map[verdict.Class]lipgloss.Style{
	verdict.None:      lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Green),
	verdict.Bounded:   lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Green),
	verdict.Aside:     lipgloss.NewStyle().Faint(true),
	verdict.Unknown:   lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Yellow),
	verdict.Forbidden: lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Red),
}

// View draws what fits.
func (v *liveView) View() tea.View { return tea.NewView(v.content()) }

func (v *liveView) content() string {
	if v.report == nil {
		return fmt.Sprintf("nothing seen yet, %v\n\nq ends it", time.Since(v.started).Round(time.Second))
	}
	r := v.report
	lines := []string{
		classStyle[r.Verdict].Render(strings.ToUpper(r.Verdict.String())) + " so far: " + strings.Join(r.Reasons, "; "),
		watched(r),
		"",
	}
	for _, g := range groupsOf(r) {
		for _, row := range g.rows {
			lines = append(lines, fmt.Sprintf("%s %7d %9s  %-16s %s",
				classStyle[g.class].Render(fmt.Sprintf("%-9s", g.class)), row.count, row.size(), row.kind, row.blame))
		}
	}
	const rest = 2 // lines below
	if most := v.height - rest; most > 0 && len(lines) > most {
		lines = append(lines[:most-1], fmt.Sprintf("... and %d more", len(lines)-most+1))
	}
	for i, line := range lines {
		if v.width > 0 {
			lines[i] = lipgloss.NewStyle().MaxWidth(v.width).Render(line)
		}
	}
	return strings.Join(append(lines, "", "q ends it"), "\n")
}
