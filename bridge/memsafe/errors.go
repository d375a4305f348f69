// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"errors"
	"fmt"
)

// What a step could not do, for errors.Is. A daemon that gets one of them must not serve: the rule
// that the step stands for is not kept.
var (
	ErrBudget    = errors.New("the budget is not possible")
	ErrReserve   = errors.New("the reserve is not raised")
	ErrFlag      = errors.New("PF_MEMALLOC mode is not entered")
	ErrOOM       = errors.New("the OOM killer may kill it")
	ErrDump      = errors.New("it may be dumped")
	ErrLock      = errors.New("the memory is not locked")
	ErrScheduler = errors.New("the real-time priority is not given")
)

// A StepError says which step failed, what the kernel said, and what an administrator has to do.
type StepError struct {
	Step   error  // one of the Err values above
	Err    error  // the cause, which errors.Is finds too
	Remedy string // a sentence without a full stop
}

// Error reads like: the memory is not locked: mlockall: operation not permitted: give it CAP_IPC_LOCK.
func (e *StepError) Error() string {
	return fmt.Sprintf("memsafe: %v: %v: %s", e.Step, e.Err, e.Remedy)
}

// Unwrap gives the step and the cause.
func (e *StepError) Unwrap() []error { return []error{e.Step, e.Err} }

// step makes err, if it is one, the error of a step.
func step(which error, remedy string, err error) error {
	if err == nil {
		return nil
	}
	return &StepError{Step: which, Err: err, Remedy: remedy}
}
