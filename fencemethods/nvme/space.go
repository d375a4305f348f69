// SPDX-License-Identifier: GPL-2.0-only

package nvme

import (
	"fmt"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/reserve"
)

// A space is a namespace.
type space struct {
	bus     bus
	wwid    string
	persist bool // ask the namespace to keep its reservations
	short   bool // its hosts have identifiers of 64 bits

	c command
}

func (s *space) Name() string { return s.bus.name() }

func (s *space) Close() error { return s.bus.close() }

// Read needs one command: a report is of one moment.
func (s *space) Read(mine, theirs reserve.Key) (reserve.Table, *reserve.Failure) {
	if f := s.report(); f != nil {
		return reserve.Table{}, f
	}
	t, ok := readReport(s.c.data, !s.short, mine, theirs)
	if !ok {
		return reserve.Table{}, failReport
	}
	return t, nil
}

// report leaves the report in the command's data.
func (s *space) report() *reserve.Failure {
	if f := s.identify(); f != nil {
		return f
	}
	f := s.ask()
	if f == failHostID {
		// Of which form they are the namespace says by declining the other one.
		s.short = !s.short
		f = s.ask()
	}
	return f
}

func (s *space) ask() *reserve.Failure {
	s.c = command{opcode: opReport, dw10: reportNumber(reportLen), dw11: extended, data: s.bus.buffer()[:reportLen]}
	if s.short {
		s.c.dw11 = 0
	}
	clear(s.c.data) // the report is shorter than the buffer
	return s.send()
}

func (s *space) Preempt(mine, theirs reserve.Key) *reserve.Failure {
	return s.order(opAcquire, acquirePreemptAbort|allRegistrants<<8, mine, theirs)
}

// Prove replaces the key by itself, which the namespace takes only from a host that has it.
func (s *space) Prove(mine reserve.Key) *reserve.Failure {
	return s.register(registerReplace, mine, mine)
}

// Register registers a host that is not, and then one that is, whatever its key, but for that of another node
// of the cluster: the two would be one host to the namespace.
func (s *space) Register(mine reserve.Key) *reserve.Failure {
	f := s.register(registerNew, 0, mine)
	if f != reserve.Conflict {
		return f
	}
	if f := s.alone(mine); f != nil {
		return f
	}
	return s.register(registerReplace|ignoreKey, 0, mine)
}

// alone makes sure that this host is not registered as another node. It is told by its key, which can be
// replaced by itself.
func (s *space) alone(mine reserve.Key) *reserve.Failure {
	if f := s.report(); f != nil {
		return f
	}
	list, ok := registrationsOf(s.c.data, !s.short)
	if !ok {
		return failReport
	}
	var others []reserve.Key // before the buffer is used again
	for ; list.left(); list.next() {
		if key := list.key(); key.SameCluster(mine) && key != mine {
			others = append(others, key)
		}
	}
	for _, key := range others {
		switch f := s.register(registerReplace, key, key); f {
		case nil:
			return &reserve.Failure{
				Kind: fencemethods.ErrRefused, Detail: fmt.Sprintf("this host is registered as node %d", key.Node()),
				Advice: "give each node a Host Identifier of its own; or remove that key: nvme resv-register",
			}
		case reserve.Conflict:
		default:
			return f
		}
	}
	return nil
}

func (s *space) Reserve(mine reserve.Key) *reserve.Failure {
	return s.order(opAcquire, acquire|allRegistrants<<8, mine, 0)
}

func (s *space) register(how uint32, current, key reserve.Key) *reserve.Failure {
	if !s.persist {
		return s.order(opRegister, how, current, key)
	}
	f := s.order(opRegister, how|keepPower, current, key)
	if f == failField {
		return failNoPersist
	}
	return f
}

// order is a command that changes something, of this namespace and of no other.
func (s *space) order(opcode uint8, how uint32, key, other reserve.Key) *reserve.Failure {
	if f := s.identify(); f != nil {
		return f
	}
	s.c = command{opcode: opcode, dw10: how, data: keys(s.bus.buffer(), key, other)}
	return s.send()
}

// identify makes sure that this is the namespace.
func (s *space) identify() *reserve.Failure {
	s.c = command{admin: true, opcode: opIdentify, dw10: identifyDescriptors, data: s.bus.buffer()[:identifyLen]}
	clear(s.c.data)
	if f := s.send(); f != nil {
		return f
	}
	if !isNamespace(s.c.data, s.wwid) {
		return failAnother
	}
	return nil
}

const (
	sendTries = 20
	busyTime  = 20 * time.Millisecond
)

// send sends the command until it was carried out or declined for good.
func (s *space) send() *reserve.Failure {
	var f *reserve.Failure
	for range sendTries {
		result, err := s.bus.send(&s.c)
		if err != nil {
			return failBus
		}
		if f = verdict(result & statusMask); f != failBusy {
			return f
		}
		time.Sleep(busyTime)
	}
	return f
}

func verdict(s status) *reserve.Failure {
	switch s {
	case statusGood:
		return nil
	case statusConflict:
		return reserve.Conflict
	case statusOpcode:
		return failUnknown
	case statusField:
		return failField
	case statusHostID:
		return failHostID
	case statusNotReady, statusAborted, statusAbortedQueue:
		return failBusy
	}
	if s&statusPathMask == statusPath {
		return failBus
	}
	return failDeclined
}

var (
	failBus = &reserve.Failure{
		Kind: fencemethods.ErrUnreachable, Detail: "the namespace does not answer",
		Advice: "check the path; after a new connection restart o2fenced",
	}
	failAnother = &reserve.Failure{
		Kind: fencemethods.ErrRefused, Detail: "is another namespace now",
		Advice: "compare namespaces with /sys/block/nvme*/wwid, and restart o2fenced",
	}
	failUnknown = &reserve.Failure{
		Kind: fencemethods.ErrRefused, Detail: "the namespace does not know reservations",
		Advice: "take another method",
	}
	failField = &reserve.Failure{
		Kind: fencemethods.ErrRefused, Detail: "the namespace does not know this kind of reservations",
		Advice: "see: nvme id-ns, rescap",
	}
	failNoPersist = &reserve.Failure{
		Kind: fencemethods.ErrRefused, Detail: "the namespace does not keep reservations when it restarts",
		Advice: "see persist in configuration.md",
	}
	failHostID = &reserve.Failure{
		Kind: fencemethods.ErrRefused, Detail: "this host has no identifier for the controller",
		Advice: "give it one: nvme set-feature -f 0x81",
	}
	failReport = &reserve.Failure{
		Kind: fencemethods.ErrProtocol, Detail: "the report of registrations is not whole",
		Advice: "see: nvme resv-report",
	}
	failDeclined = &reserve.Failure{
		Kind: fencemethods.ErrRefused, Detail: "the namespace declines the command",
		Advice: "try: nvme resv-report",
	}
	failBusy = &reserve.Failure{
		Kind: fencemethods.ErrBusy, Detail: "the namespace is busy",
		Advice: "allow more time",
	}
)
