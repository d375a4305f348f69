// SPDX-License-Identifier: GPL-2.0-only

package redfish

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/o2fence/o2fence/fencemethods"
)

// check reads the system, and what else says whether the BMC would obey.
func (d *device) check(ctx context.Context) *failure {
	f := d.read(ctx)
	if f == failNoPath {
		return d.whichSystems(ctx)
	}
	if f != nil {
		return f
	}
	if _, f := d.reset.word(fencemethods.Off); f != nil {
		return f
	}
	if f := d.checkAllowed(ctx); f != nil {
		return f
	}
	return d.checkRights(ctx)
}

// whichSystems names the systems that there are, for who configured another.
func (d *device) whichSystems(ctx context.Context) *failure {
	f := d.get(ctx, "/redfish/v1/Systems")
	if f != nil {
		return failNoPath
	}
	paths := strings.Join(decodeMembers(d.body), ", ")
	if paths == "" {
		return failNoPath
	}
	if len(paths) > 80 {
		paths = paths[:80] + "..."
	}
	return &failure{
		Kind: failNoPath.Kind, Detail: "no such system; there are " + paths,
		Advice: "set system to the node's",
	}
}

// checkAllowed makes sure that ForceOff is among the values that the BMC allows; it says so in the
// system itself or in an ActionInfo (DSP0268).
func (d *device) checkAllowed(ctx context.Context) *failure {
	if len(d.reset.Allowed) > 0 {
		return nil // word has looked
	}
	if !isPath(d.reset.Info) {
		return failUnsure
	}
	if f := d.get(ctx, d.reset.Info); f != nil {
		return f
	}
	switch allowed := decodeActionInfo(d.body); {
	case len(allowed) == 0:
		return failUnsure
	case !slices.Contains(allowed, "ForceOff"):
		return failNoForceOff
	}
	return nil
}

// get reads another resource.
func (d *device) get(ctx context.Context, path string) *failure {
	status, f := d.exchange(ctx, http.MethodGet, path, nil)
	if f != nil {
		return f
	}
	return statusFailure(status)
}

// maxAccounts is how many accounts are looked through for the user's own.
const maxAccounts = 32

// checkRights looks up whether the user's role may reset systems: it needs the privilege
// ConfigureComponents (DSP0266, "Privilege model"). A BMC that does not tell, for it has no such
// service or because the user may not look, passes: the reset was not tried.
func (d *device) checkRights(ctx context.Context) *failure {
	if f := d.get(ctx, "/redfish/v1/AccountService/Accounts"); f != nil {
		return d.unlessSilent(f)
	}
	paths := decodeMembers(d.body)
	for _, path := range paths[:min(len(paths), maxAccounts)] {
		if f := d.get(ctx, path); f != nil {
			if d.unlessSilent(f) != nil {
				return f
			}
			continue
		}
		role, ok := decodeAccount(d.body, d.user)
		if !ok {
			continue
		}
		if f := d.get(ctx, role); f != nil {
			return d.unlessSilent(f)
		}
		if privileges, ok := decodeRole(d.body); ok && !slices.Contains(privileges, "ConfigureComponents") {
			return failRights
		}
		return nil
	}
	return nil
}

// unlessSilent returns nil for what only says that there is nothing to read.
func (d *device) unlessSilent(f *failure) *failure {
	switch f.Kind {
	case fencemethods.ErrAuth, fencemethods.ErrRefused, fencemethods.ErrProtocol:
		return nil
	}
	return f
}

// decodeAccount returns the path of the role, if the account is user's.
func decodeAccount(b []byte, user string) (role string, ok bool) {
	var account struct {
		UserName string
		Links    struct{ Role link }
	}
	if json.Unmarshal(b, &account) != nil {
		return "", false
	}
	return account.Links.Role.ID, account.UserName == user && isPath(account.Links.Role.ID)
}

// decodeRole returns a role's privileges.
func decodeRole(b []byte) (privileges []string, ok bool) {
	var role struct{ AssignedPrivileges []string }
	err := json.Unmarshal(b, &role)
	return role.AssignedPrivileges, err == nil && role.AssignedPrivileges != nil
}
