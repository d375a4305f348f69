// SPDX-License-Identifier: GPL-2.0-only

package sandbox

import (
	"bytes"
	"fmt"
	"time"
)

// The messages between a Jail and the Server are packets: a line of a verb and numbers, then bytes.
//
//	open SEQ MIN_KIB MAX_KIB PROCESSES\nPROGRAM    -> opened SEQ  or  refused SEQ\nWHY
//	run SEQ TIMEOUT_MS\nSTDIN                      -> ended SEQ END CODE STDOUT_BYTES\nSTDOUT STDERR
//	stop SEQ                                       -> the answer to run, sooner
//
// A connection is a jail, which ends with it. SEQ is chosen by the client; an answer to another
// question than the last one is passed over.
type message struct {
	verb string
	seq  uint64
	args [3]int
	end  End
	body []byte
	came time.Time // when the server received it
}

const (
	verbOpen    = "open"
	verbRun     = "run"
	verbStop    = "stop"
	verbOpened  = "opened"
	verbRefused = "refused"
	verbEnded   = "ended"
)

func (m message) append(b []byte) []byte {
	b = fmt.Appendf(b, "%s %d", m.verb, m.seq)
	switch m.verb {
	case verbOpen:
		b = fmt.Appendf(b, " %d %d %d", m.args[0], m.args[1], m.args[2])
	case verbRun:
		b = fmt.Appendf(b, " %d", m.args[0])
	case verbEnded:
		b = fmt.Appendf(b, " %s %d %d", m.end, m.args[0], m.args[1])
	}
	return append(append(b, '\n'), m.body...)
}

// parse keeps a part of b as the body.
func parse(b []byte) (m message, err error) {
	line, body, ok := bytes.Cut(b, []byte("\n"))
	if !ok {
		return m, ErrMalformed
	}
	m.body = body
	rest := ""
	if _, err := fmt.Sscanf(string(line), "%s %d", &m.verb, &m.seq); err != nil {
		return m, ErrMalformed
	}
	if fields := bytes.SplitN(line, []byte(" "), 3); len(fields) == 3 {
		rest = string(fields[2])
	}
	switch m.verb {
	case verbOpen:
		_, err = fmt.Sscanf(rest, "%d %d %d", &m.args[0], &m.args[1], &m.args[2])
	case verbRun:
		_, err = fmt.Sscanf(rest, "%d", &m.args[0])
	case verbEnded:
		_, err = fmt.Sscanf(rest, "%s %d %d", &m.end, &m.args[0], &m.args[1])
		if m.args[1] < 0 || m.args[1] > len(m.body) {
			err = ErrMalformed
		}
	case verbStop, verbOpened, verbRefused:
	default:
		err = ErrMalformed
	}
	if err != nil {
		return m, ErrMalformed
	}
	return m, nil
}
