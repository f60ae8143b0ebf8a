package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/holdfast-io/holdfast/cmd/holdfast/supervise"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// Status is what `holdfast dev status` shows.
type Status struct {
	Info
	Dir       string           `json:"dir"`
	Framework supervise.Status `json:"framework"`
	Nodes     []NodeStatus     `json:"nodes"`
}

// Order is the body of an action on an agent.
type Order struct {
	FromMaster    bool `json:"fromMaster,omitempty"`
	FromAuthority bool `json:"fromAuthority,omitempty"`
}

// handler is the control API: the supervisor's own, on a unix socket that only this user can open.
func (c *Cluster) handler() http.Handler {
	r := mux.NewRouter()
	r.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) { answer(w, c.status(), nil) }).Methods(http.MethodGet)
	r.HandleFunc("/agents/{name}/{verb}", c.actOnAgent).Methods(http.MethodPost)
	r.HandleFunc("/framework/{verb}", c.actOnFramework).Methods(http.MethodPost)
	return r
}

func (c *Cluster) status() Status {
	info, _ := readInfo(c.layout)
	s := Status{Info: info, Dir: c.layout.Dir, Framework: c.framework.Status()}
	for _, n := range c.nodes {
		s.Nodes = append(s.Nodes, n.status())
	}
	return s
}

func (c *Cluster) actOnAgent(w http.ResponseWriter, r *http.Request) {
	name, verb := mux.Vars(r)["name"], mux.Vars(r)["verb"]
	var o Order
	if err := json.NewDecoder(io.LimitReader(r.Body, 4096)).Decode(&o); err != nil {
		answer(w, nil, fault.Wrap(fault.Invalid, err, "order for agent %s", name))
		return
	}
	for _, n := range c.nodes {
		if n.name != name {
			continue
		}
		err := n.act(r.Context(), verb, o)
		answer(w, n.status(), err)
		return
	}
	answer(w, nil, fault.New(fault.NotFound, "there is no agent %q (holdfast dev agent list)", name))
}

func (n *node) act(ctx context.Context, verb string, o Order) error {
	switch verb {
	case "start":
		return n.start(ctx)
	case "stop":
		return n.stop()
	case "kill":
		return n.kill()
	case "partition":
		return n.partition(o.FromMaster, o.FromAuthority)
	case "heal":
		return n.heal()
	case "crash-helper":
		return n.crashHelper()
	}
	return fault.New(fault.NotFound, "agents cannot %q", verb)
}

func (c *Cluster) actOnFramework(w http.ResponseWriter, r *http.Request) {
	switch verb := mux.Vars(r)["verb"]; verb {
	case "kill": // restarted after its backoff, as after a crash
		answer(w, c.framework.Status(), c.framework.Crash(false))
	case "restart":
		answer(w, c.framework.Status(), c.framework.Crash(true))
	default:
		answer(w, nil, fault.New(fault.NotFound, "the framework cannot %q", verb))
	}
}

// answer writes a value or an error; an error's class travels beside its text.
func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(fault.HTTPStatus(fault.ClassOf(err)))
		v = map[string]any{"code": fault.ClassOf(err), "message": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(v)
}

// Control talks to the supervisor that runs on a directory.
type Control struct {
	dir  string
	http *http.Client
}

// Connect finds the supervisor of a directory. Nothing is sent yet.
func Connect(dir string) (*Control, error) {
	layout, err := existingLayout(dir)
	if err != nil {
		return nil, err
	}
	info, err := readInfo(layout)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "unix", info.Control)
	}
	return &Control{dir: layout.Dir, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 60 * time.Second}}, nil
}

// Status asks for everything.
func (c *Control) Status(ctx context.Context) (*Status, error) {
	s := new(Status)
	return s, c.call(ctx, http.MethodGet, "/status", nil, s)
}

// Agent makes an agent start, stop, kill, partition or heal.
func (c *Control) Agent(ctx context.Context, name, verb string, o Order) (*NodeStatus, error) {
	s := new(NodeStatus)
	return s, c.call(ctx, http.MethodPost, "/agents/"+name+"/"+verb, o, s)
}

// Framework makes the framework kill or restart.
func (c *Control) Framework(ctx context.Context, verb string) (*supervise.Status, error) {
	s := new(supervise.Status)
	return s, c.call(ctx, http.MethodPost, "/framework/"+verb, struct{}{}, s)
}

func (c *Control) call(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "%s", path)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://dev"+path, bytes.NewReader(body))
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "%s", path)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "no `holdfast dev` answers for %s", c.dir)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return fault.Wrap(fault.Unknown, err, "%s", path)
	}
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Code    fault.Class `json:"code"`
			Message string      `json:"message"`
		}
		if json.Unmarshal(raw, &e) != nil || e.Message == "" {
			return fault.New(fault.FromHTTPStatus(resp.StatusCode), "%s: %s", path, resp.Status)
		}
		return fault.New(e.Code, "%s", e.Message)
	}
	return fault.Wrap(fault.Internal, json.Unmarshal(raw, out), "%s", path)
}
