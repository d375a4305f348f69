// SPDX-License-Identifier: GPL-2.0-only

package redfishd

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"
)

// An object is a JSON object.
type object map[string]any

// handler serves the resources. Only the root and the opening of a session are for anybody
// (DSP0266, "Resource and operation authentication requirements").
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	public := func(pattern string, f http.HandlerFunc) { mux.HandleFunc(pattern, f) }
	private := func(pattern string, f http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if !s.knows(r) {
				w.Header().Set("WWW-Authenticate", `Basic realm="redfish"`)
				s.refuse(w, http.StatusUnauthorized, "Base.1.8.NoValidSession")
				return
			}
			f(w, r)
		})
	}
	public("GET /redfish", func(w http.ResponseWriter, _ *http.Request) { s.answer(w, 200, object{"v1": "/redfish/v1/"}) })
	public("GET /redfish/v1", s.root)
	public("POST /redfish/v1/SessionService/Sessions", func(w http.ResponseWriter, r *http.Request) {
		if s.now().OldSessions {
			s.refuse(w, http.StatusNotFound, "Base.1.8.ResourceMissingAtURI")
			return
		}
		s.openSession(w, r)
	})
	public("POST /redfish/v1/Sessions", s.openSession)
	private("DELETE /redfish/v1/SessionService/Sessions/{number}", s.closeSession)
	private("POST "+System+"/Actions/ComputerSystem.Reset", s.doReset)
	private("GET "+System, s.system)
	for path, resource := range resources() {
		resource["@odata.id"] = path
		private("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			s.answer(w, 200, resource)
		})
	}
	private("GET /redfish/v1/AccountService/Accounts/2", func(w http.ResponseWriter, _ *http.Request) {
		s.answer(w, 200, s.account())
	})
	private("GET "+System+"/ResetActionInfo", func(w http.ResponseWriter, _ *http.Request) {
		s.answer(w, 200, s.actionInfo())
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.refuse(w, http.StatusNotFound, "Base.1.8.ResourceMissingAtURI")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.note(func(seen *Seen) { seen.Requests++ })
		time.Sleep(s.now().Delay)
		if len(r.URL.Path) > 1 {
			r.URL.Path = strings.TrimSuffix(r.URL.Path, "/")
		}
		if s.now().Twice {
			twice(w, func(w http.ResponseWriter) { mux.ServeHTTP(w, r) })
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// twice gives one answer as if it were two.
func twice(w http.ResponseWriter, serve func(http.ResponseWriter)) {
	recorded := httptest.NewRecorder()
	serve(recorded)
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err) // which net/http takes
	}
	defer conn.Close()
	answer := recorded.Result()
	answer.ContentLength = int64(recorded.Body.Len())
	var b bytes.Buffer
	if err := answer.Write(&b); err != nil {
		panic(err)
	}
	_, _ = conn.Write(bytes.Repeat(b.Bytes(), 2))
	_, _ = io.Copy(io.Discard, conn) // until the other end has had enough
}

// resources are those that never change.
func resources() map[string]object {
	collection := func(kind, name string, members ...string) object {
		links := []object{}
		for _, m := range members {
			links = append(links, object{"@odata.id": m})
		}
		return object{
			"@odata.type": "#" + kind + "Collection." + kind + "Collection",
			"Name":        name, "Members": links, "Members@odata.count": len(links),
		}
	}
	role := func(name string, privileges ...string) object {
		return object{
			"@odata.type": "#Role.v1_2_4.Role", "Id": name, "Name": name, "RoleId": name,
			"IsPredefined": true, "AssignedPrivileges": privileges,
		}
	}
	return map[string]object{
		"/redfish/v1/Systems": collection("ComputerSystem", "Systems", System),
		"/redfish/v1/SessionService": {
			"@odata.type": "#SessionService.v1_1_8.SessionService", "Id": "SessionService", "Name": "Session Service",
			"ServiceEnabled": true, "SessionTimeout": 1800,
			"Sessions": object{"@odata.id": "/redfish/v1/SessionService/Sessions"},
		},
		"/redfish/v1/SessionService/Sessions": collection("Session", "Sessions"),
		"/redfish/v1/AccountService": {
			"@odata.type": "#AccountService.v1_5_0.AccountService", "Id": "AccountService", "Name": "Account Service",
			"Accounts": object{"@odata.id": "/redfish/v1/AccountService/Accounts"},
			"Roles":    object{"@odata.id": "/redfish/v1/AccountService/Roles"},
		},
		"/redfish/v1/AccountService/Accounts": collection("ManagerAccount", "Accounts",
			"/redfish/v1/AccountService/Accounts/1", "/redfish/v1/AccountService/Accounts/2"),
		"/redfish/v1/AccountService/Accounts/1": {
			"@odata.type": "#ManagerAccount.v1_4_0.ManagerAccount", "Id": "1", "Name": "Root", "UserName": "root",
			"Links": object{"Role": object{"@odata.id": "/redfish/v1/AccountService/Roles/Administrator"}},
		},
		"/redfish/v1/AccountService/Roles/Administrator": role("Administrator",
			"Login", "ConfigureManager", "ConfigureUsers", "ConfigureSelf", "ConfigureComponents"),
		"/redfish/v1/AccountService/Roles/Operator": role("Operator", "Login", "ConfigureSelf", "ConfigureComponents"),
		"/redfish/v1/AccountService/Roles/ReadOnly": role("ReadOnly", "Login", "ConfigureSelf"),
	}
}

func (s *Server) root(w http.ResponseWriter, _ *http.Request) {
	where := "/redfish/v1/SessionService/Sessions"
	if s.now().OldSessions {
		where = "/redfish/v1/Sessions"
	}
	s.answer(w, 200, object{
		"@odata.id": "/redfish/v1/", "@odata.type": "#ServiceRoot.v1_9_0.ServiceRoot",
		"Id": "RootService", "Name": "Root Service", "RedfishVersion": "1.11.0",
		"UUID":           "92384634-2938-2342-8820-489239905423",
		"Systems":        object{"@odata.id": "/redfish/v1/Systems"},
		"SessionService": object{"@odata.id": "/redfish/v1/SessionService"},
		"AccountService": object{"@odata.id": "/redfish/v1/AccountService"},
		"Links":          object{"Sessions": object{"@odata.id": where}},
	})
}

// resetTypes are those of the schema that this BMC knows.
func resetTypes() []string {
	return []string{"On", "ForceOff", "ForceOn", "GracefulShutdown", "GracefulRestart", "ForceRestart"}
}

func (h Habits) values() []string {
	if h.Values != nil {
		return h.Values
	}
	return resetTypes()
}

func (s *Server) system(w http.ResponseWriter, _ *http.Request) {
	h := s.now()
	id := System
	if h.Foreign {
		id = "/redfish/v1/Systems/node2"
	}
	if h.Slash {
		id += "/"
	}
	action := object{"target": strings.TrimSuffix(id, "/") + "/Actions/ComputerSystem.Reset"}
	if h.Whole {
		action["target"] = "https://" + s.addr.String() + action["target"].(string)
	}
	if h.Target != nil {
		action["target"] = *h.Target
	}
	switch {
	case h.Info:
		action["@Redfish.ActionInfo"] = System + "/ResetActionInfo"
	case !h.Mum:
		action["ResetType@Redfish.AllowableValues"] = h.values()
	}
	b, err := json.Marshal(object{
		"@odata.id": id, "@odata.type": "#ComputerSystem.v1_13_0.ComputerSystem",
		"Id": "node1", "Name": "node1", "SystemType": "Physical", "UUID": "38947555-7742-3448-3784-823347823834",
		"Manufacturer": "o2fence", "Description": strings.Repeat("x", h.Length),
		"Status": object{"State": "Enabled", "Health": "OK"},
		"Boot": object{
			"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None",
			"BootSourceOverrideTarget@Redfish.AllowableValues": []string{"None", "Pxe", "Hdd"},
		},
		"PowerState": nil,
		"Actions":    object{"#ComputerSystem.Reset": action},
	})
	if err != nil {
		panic(err) // which net/http takes
	}
	// A habit may be one that no JSON encoder has.
	s.send(w, http.StatusOK, bytes.Replace(b, []byte(`"PowerState":null`), []byte(`"PowerState":`+s.powerState(h)), 1))
}

func (s *Server) actionInfo() object {
	return object{
		"@odata.id": System + "/ResetActionInfo", "@odata.type": "#ActionInfo.v1_1_2.ActionInfo",
		"Id": "ResetActionInfo", "Name": "Reset Action Info",
		"Parameters": []object{{
			"Name": "ResetType", "Required": true, "DataType": "String", "AllowableValues": s.now().values(),
		}},
	}
}

func (s *Server) role() string {
	if role := s.now().Role; role != "" {
		return role
	}
	return "Operator"
}

func (s *Server) account() object {
	return object{
		"@odata.id": "/redfish/v1/AccountService/Accounts/2", "@odata.type": "#ManagerAccount.v1_4_0.ManagerAccount",
		"Id": "2", "Name": "User", "UserName": s.config.User, "Password": nil, "RoleId": s.role(),
		"Links": object{"Role": object{"@odata.id": "/redfish/v1/AccountService/Roles/" + s.role()}},
	}
}

func (s *Server) doReset(w http.ResponseWriter, r *http.Request) {
	h := s.now()
	var wish struct{ ResetType string }
	switch err := json.NewDecoder(r.Body).Decode(&wish); {
	case s.role() == "ReadOnly":
		s.refuse(w, http.StatusForbidden, "Base.1.8.InsufficientPrivilege")
		return
	case err != nil:
		s.refuse(w, http.StatusBadRequest, "Base.1.8.MalformedJSON")
		return
	case h.Decline != 0:
		s.note(func(seen *Seen) { seen.Resets = append(seen.Resets, wish.ResetType) })
		s.refuse(w, h.Decline, "Base.1.8.ResourceInUse")
		return
	}
	switch err := s.reset(wish.ResetType); {
	case errors.Is(err, errResetType):
		s.refuse(w, http.StatusBadRequest, "Base.1.8.ActionParameterNotSupported")
	case err != nil:
		s.refuse(w, http.StatusInternalServerError, "Base.1.8.InternalError")
	case h.Acknowledge == http.StatusOK:
		s.answer(w, http.StatusOK, object{"error": object{"code": "Base.1.8.Success", "message": "done"}})
	case h.Acknowledge != 0:
		w.WriteHeader(h.Acknowledge)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// knows reports whether a request is the user's.
func (s *Server) knows(r *http.Request) bool {
	if token := r.Header.Get("X-Auth-Token"); token != "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.sessions[token] != ""
	}
	user, password, ok := r.BasicAuth()
	if ok {
		s.note(func(seen *Seen) { seen.Credentials++ })
	}
	return ok && !s.now().NoBasic && s.is(user, password)
}

func (s *Server) is(user, password string) bool {
	return user == s.config.User && password == s.config.Password
}

func (s *Server) openSession(w http.ResponseWriter, r *http.Request) {
	var who struct{ UserName, Password string }
	s.note(func(seen *Seen) { seen.Logins++; seen.Credentials++ })
	if json.NewDecoder(r.Body).Decode(&who) != nil || !s.is(who.UserName, who.Password) {
		s.refuse(w, http.StatusUnauthorized, "Base.1.8.NoValidSession")
		return
	}
	limit := s.now().Sessions
	s.mu.Lock()
	full := limit != 0 && len(s.sessions) >= limit
	s.count++
	token, number := rand.Text(), strconv.Itoa(s.count)
	if !full {
		s.sessions[token] = number
	}
	s.mu.Unlock()
	if full {
		s.refuse(w, http.StatusServiceUnavailable, "Base.1.8.SessionLimitExceeded")
		return
	}
	path := "/redfish/v1/SessionService/Sessions/" + number
	w.Header().Set("X-Auth-Token", token)
	w.Header().Set("Location", path)
	s.answer(w, http.StatusCreated, object{
		"@odata.id": path, "@odata.type": "#Session.v1_3_0.Session",
		"Id": number, "Name": "User Session", "UserName": who.UserName,
	})
}

func (s *Server) closeSession(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	found := false
	for token, number := range s.sessions {
		if number == r.PathValue("number") {
			delete(s.sessions, token)
			found = true
		}
	}
	s.mu.Unlock()
	if !found {
		s.refuse(w, http.StatusNotFound, "Base.1.8.ResourceMissingAtURI")
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// refuse answers with an error (DSP0266, "Error responses").
func (s *Server) refuse(w http.ResponseWriter, status int, id string) {
	s.answer(w, status, object{"error": object{
		"code": id, "message": http.StatusText(status),
		"@Message.ExtendedInfo": []object{{"@odata.type": "#Message.v1_1_2.Message", "MessageId": id}},
	}})
}

func (s *Server) answer(w http.ResponseWriter, status int, body object) {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	s.send(w, status, b)
}

func (s *Server) send(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("OData-Version", "4.0")
	w.Header().Set("Content-Type", "application/json;odata.metadata=minimal;charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
