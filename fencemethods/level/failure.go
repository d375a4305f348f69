// SPDX-License-Identifier: GPL-2.0-only

package level

import (
	"context"
	"errors"
	"strings"

	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods"
)

var (
	failBackOn = &fencemethods.Error{
		Kind: fencemethods.ErrNotOff, Detail: "off, and then on again", Advice: "see who switches it on",
	}
	failUnread = &fencemethods.Error{
		Kind: fencemethods.ErrTimeout, Detail: "off, and then unknown", Advice: "look at the device",
	}
	failUnended = &fencemethods.Error{Kind: fencemethods.ErrTimeout, Detail: "has not ended"}
	failNoWay   = &fencemethods.Error{
		Kind: fencemethods.ErrUnsupported, Detail: "none of its devices can", Advice: "switch it on by hand",
	}
)

// textRoom is how much of an error's text is left to the level by what Method.Open puts before it, in
// bytes.
func textRoom(method, node string) int {
	return uapi.TextMax - len(method) - len(" ") - len(node) - len(": status: ")
}

// giveUp calls off what has not ended, and says why there is no more time for it.
func (l *level) giveUp(ctx context.Context) error {
	l.callOff()
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	for _, m := range l.members {
		if m.waited {
			m.unended = true
		}
	}
	return l.failure()
}

// failure says which members have failed, each with its own words as far as there is room. It is of the
// first one's kind. Without any it is nil.
func (l *level) failure() error {
	var failed []*fencemethods.Error
	var names []string
	for _, m := range l.members {
		if e := m.failure(); e != nil {
			failed, names = append(failed, e), append(names, m.Name)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	const advice = "run o2fencectl check"
	first := failed[0]
	room := l.room - len(first.Kind.Error()) - len(": ") - len("; ") - len(advice)
	var text []string
	for i, e := range failed {
		said := names[i]
		if i > 0 {
			said += ": " + e.Kind.Error()
		}
		if e.Detail != "" {
			said += ": " + e.Detail
		}
		said = shorten(said, room/(len(failed)-i)-len("; "))
		room -= len(said) + len("; ")
		text = append(text, said)
	}
	e := &fencemethods.Error{Kind: first.Kind, Code: first.Code, Detail: strings.Join(text, "; "), Advice: advice}
	if len(failed) == 1 && first.Advice != "" && len(first.Advice) <= room+len(advice) {
		e.Advice = first.Advice
	}
	return e
}

// failure is how the member has failed in the operation under way; nil: it has not, or is not waited
// for any more.
func (m *member) failure() *fencemethods.Error {
	switch {
	case m.waited && m.unended:
		return failUnended
	case m.waited || m.err == nil:
		return nil
	}
	if own, ok := errors.AsType[*fencemethods.Error](m.err); ok {
		return own
	}
	if errors.Is(m.err, context.DeadlineExceeded) {
		return &fencemethods.Error{Kind: fencemethods.ErrTimeout}
	}
	return &fencemethods.Error{Kind: m.err}
}

// shorten cuts a text to size bytes.
func shorten(text string, size int) string {
	const cut = "..."
	if len(text) <= size {
		return text
	}
	return strings.ToValidUTF8(text[:max(size-len(cut), 0)], "") + cut
}
