// SPDX-License-Identifier: GPL-2.0-only

package fencemethods

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func parser() Method {
	return Method{Name: "m", Params: []Param{
		{Name: "addr", Required: true, Help: "address of the device"},
		{Name: "port", Default: "623", Validate: Between(1, 65535)},
		{Name: "mode", Validate: OneOf("fast", "slow")},
		{Name: "password_file", Secret: true},
	}}
}

func TestParseFillsInDefaults(t *testing.T) {
	got, err := parser().Parse(map[string]string{"addr": "a", "mode": "slow"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Values{"addr": "a", "port": "623", "mode": "slow"}, got); diff != "" {
		t.Error(diff)
	}
	if got.Int("port") != 623 || got.Int("mode") != 0 {
		t.Errorf("Int: port %d, mode %d", got.Int("port"), got.Int("mode"))
	}
}

func TestParseNamesTheParameterThatIsWrong(t *testing.T) {
	for _, c := range []struct {
		given     map[string]string
		key, text string
	}{
		{map[string]string{}, "addr", "m: addr: missing: address of the device"},
		{map[string]string{"addr": ""}, "addr", "m: addr: empty: address of the device"},
		{map[string]string{"adr": "a"}, "adr", `m: adr: unknown parameter, did you mean "addr"?`},
		{map[string]string{"x": "a"}, "x", "m: x: unknown parameter, expected one of addr, port, mode, password_file"},
		{map[string]string{"addr": "a", "port": "0"}, "port", `m: port: "0" is not a whole number from 1 to 65535`},
		{map[string]string{"addr": "a", "port": "1e3"}, "port", `m: port: "1e3" is not a whole number from 1 to 65535`},
		{map[string]string{"addr": "a", "mode": "fats"}, "mode", `m: mode: "fats" is none of its values, did you mean "fast"?`},
	} {
		_, err := parser().Parse(c.given)
		e, ok := errors.AsType[*ParamError](err)
		if !ok || e.Key != c.key || err.Error() != c.text {
			t.Errorf("Parse(%v): %v, want %q", c.given, err, c.text)
		}
	}
}

func TestParametersThatOnlyFitTogetherAreVerified(t *testing.T) {
	m := parser()
	m.Verify = func(v Values) *ParamError {
		if v["mode"] == "fast" && v["port"] != "623" {
			return &ParamError{Key: "port", Text: "not with mode = fast"}
		}
		return nil
	}
	if _, err := m.Parse(map[string]string{"addr": "a", "mode": "fast"}); err != nil {
		t.Error(err)
	}
	_, err := m.Parse(map[string]string{"addr": "a", "mode": "fast", "port": "624"})
	if err == nil || err.Error() != "m: port: not with mode = fast" {
		t.Errorf("Parse: %v", err)
	}
}

func TestASecretInPlaceOfItsFileIsNotRepeated(t *testing.T) {
	_, err := parser().Parse(map[string]string{"addr": "a", "password_file": "hunter2"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Parse: %v", err)
	}
}
