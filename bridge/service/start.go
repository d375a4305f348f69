// SPDX-License-Identifier: GPL-2.0-only

package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/bridge/setup"
)

// A ConfigError is a configuration that cannot be used.
type ConfigError struct{ Err error }

// Error is the cause's.
func (e ConfigError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e ConfigError) Unwrap() error { return e.Err }

// Load reads the configuration, and says what it takes to serve it. That comes first at a start: what is
// wrong there is what people want to hear first. Errors are ConfigErrors.
func Load(clusterFile, fenceFile string, own memsafe.Budget) (*config.Config, memsafe.Budget, error) {
	cfg, err := setup.Load(clusterFile, fenceFile)
	if err != nil {
		return nil, own, ConfigError{err}
	}
	budget, err := Budget(own, cfg)
	if err != nil {
		return nil, own, ConfigError{err}
	}
	return cfg, budget, nil
}

// Plan is how a daemon of that name keeps the memory rules. open is as in memsafe.Plan.
func (l Log) Plan(budget memsafe.Budget, open func() error) memsafe.Plan {
	return memsafe.Plan{
		Name: string(l), Budget: budget, Reserve: memsafe.SystemReserve(), Flag: FlagThread, Open: open,
		Overrun: func() {
			l.Printf("it ran for 2 s without a pause, and has no real-time priority any more: please report this")
		},
	}
}

// Ready tells the service manager that the daemon serves.
func (l Log) Ready() {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		l.Printf("systemd: %v", err)
	}
}

// ExitCode says why a daemon ends, and what to do about it: 0 it was told to; 1 it failed; 2 the
// configuration is wrong.
func (l Log) ExitCode(err error) int {
	var wrong ConfigError
	var failed *memsafe.StepError
	code := 1
	switch {
	case err == nil:
		return 0
	case errors.As(err, &wrong):
		code = 2
	case errors.As(err, &failed): // says so itself
	case errors.Is(err, kernel.ErrNotLoaded):
		err = fmt.Errorf("%w: modprobe o2fence", err)
	case errors.Is(err, kernel.ErrPermission), errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: it needs root, with CAP_NET_ADMIN, CAP_SYS_RESOURCE, CAP_IPC_LOCK and CAP_SYS_NICE", err)
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", string(l), err)
	return code
}
