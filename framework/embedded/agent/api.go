package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"sort"
	"strconv"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/files"
)

// The endpoint's surface is the part of a Mesos agent's that people and the node helper read:
//
//	GET  /health /version /state (also below /slave(1)/)
//	GET  /files/read?path=&offset=&length= /files/browse?path= /files/download?path=
//	POST /api/v1  GET_HEALTH GET_VERSION GET_AGENT GET_TASKS GET_STATE READ_FILE LIST_FILES, JSON
func (a *Agent) handler() http.Handler {
	mux := http.NewServeMux()
	box := &files.Files{Dir: a.cfg.Dir}
	for _, prefix := range []string{"", "/slave(1)"} {
		mux.HandleFunc("GET "+prefix+"/health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
		mux.HandleFunc("GET "+prefix+"/state", func(w http.ResponseWriter, _ *http.Request) { answer(w, a.stateJSON()) })
		mux.HandleFunc("GET "+prefix+"/state.json", func(w http.ResponseWriter, _ *http.Request) { answer(w, a.stateJSON()) })
	}
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { answer(w, versionInfo()) })
	for _, ext := range []string{"", ".json"} {
		mux.HandleFunc("GET /files/read"+ext, box.ServeRead)
		mux.HandleFunc("GET /files/browse"+ext, box.ServeBrowse)
		mux.HandleFunc("GET /files/download"+ext, box.ServeDownload)
	}
	mux.HandleFunc("POST /api/v1", func(w http.ResponseWriter, r *http.Request) { a.serveCall(w, r, box) })
	return localOnly(mux)
}

// localOnly refuses requests that a web page of somebody else's sends through the user's browser: their Host is that page's name.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
			http.Error(w, "this endpoint is for this machine only: use 127.0.0.1 or localhost", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}

func versionInfo() map[string]any {
	return map[string]any{"version": Version, "build_user": "", "git_tag": "holdfast embedded engine"}
}

// maxCall bounds the body of an operator call.
const maxCall = 1 << 20

type operatorCall struct {
	Type     string `json:"type"`
	ReadFile *struct {
		Path   string  `json:"path"`
		Offset uint64  `json:"offset"`
		Length *uint64 `json:"length"`
	} `json:"read_file"`
	ListFiles *struct {
		Path string `json:"path"`
	} `json:"list_files"`
}

func (a *Agent) serveCall(w http.ResponseWriter, r *http.Request, box *files.Files) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		http.Error(w, "Expecting 'Content-Type' of application/json (protobuf is not spoken by this agent)", http.StatusUnsupportedMediaType)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCall))
	if err != nil {
		http.Error(w, "Failed to read the body: "+err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	var call operatorCall
	if err := json.Unmarshal(body, &call); err != nil {
		http.Error(w, "Failed to parse body into JSON: "+err.Error(), http.StatusBadRequest)
		return
	}
	result, err := a.operate(call, box)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, err.Error(), http.StatusNotFound)
	case errors.Is(err, errNotImplemented):
		http.Error(w, err.Error(), http.StatusNotImplemented)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		result["type"] = call.Type
		answer(w, result)
	}
}

var errNotImplemented = errors.New("not implemented by the embedded engine")

func (a *Agent) operate(call operatorCall, box *files.Files) (map[string]any, error) {
	switch call.Type {
	case "GET_HEALTH":
		return map[string]any{"get_health": map[string]any{"healthy": true}}, nil
	case "GET_VERSION":
		return map[string]any{"get_version": map[string]any{"version_info": versionInfo()}}, nil
	case "GET_AGENT":
		return map[string]any{"get_agent": map[string]any{"agent_info": a.registration().Info}}, nil
	case "GET_TASKS":
		return map[string]any{"get_tasks": a.tasksJSON()}, nil
	case "GET_STATE":
		return map[string]any{"get_state": map[string]any{"get_tasks": a.tasksJSON(), "get_frameworks": a.frameworksJSON()}}, nil
	case "READ_FILE":
		if call.ReadFile == nil {
			//lint:ignore ST1005 Mesos's own text
			return nil, errors.New("Expecting 'read_file' to be present")
		}
		length := int64(-1)
		if call.ReadFile.Length != nil {
			length = int64(min(*call.ReadFile.Length, files.MaxRead))
		}
		data, size, err := box.Read(call.ReadFile.Path, int64(min(call.ReadFile.Offset, 1<<62)), length)
		return map[string]any{"read_file": map[string]any{"size": size, "data": data}}, err
	case "LIST_FILES":
		if call.ListFiles == nil {
			//lint:ignore ST1005 Mesos's own text
			return nil, errors.New("Expecting 'list_files' to be present")
		}
		infos, err := box.List(call.ListFiles.Path)
		return map[string]any{"list_files": map[string]any{"file_infos": infos}}, err
	case "":
		//lint:ignore ST1005 Mesos's own text
		return nil, errors.New("Failed to validate agent::Call: Expecting 'type' to be present")
	}
	return nil, fmt.Errorf("call %.64q: %w", call.Type, errNotImplemented)
}

func (a *Agent) tasksJSON() map[string]any {
	var launched, ended, completed []mesos.Task
	for _, c := range a.allTasks() {
		t, _ := c.mesosTask()
		if terminal(t.GetState()) {
			ended = append(ended, t)
		} else {
			launched = append(launched, t)
		}
	}
	a.mu.Lock()
	done := append([]*container(nil), a.completed...)
	a.mu.Unlock()
	for _, c := range done {
		t, _ := c.mesosTask()
		completed = append(completed, t)
	}
	out := map[string]any{}
	for name, list := range map[string][]mesos.Task{"launched_tasks": launched, "terminated_tasks": ended, "completed_tasks": completed} {
		if list == nil {
			list = []mesos.Task{}
		}
		out[name] = list
	}
	return out
}

func (a *Agent) frameworksJSON() map[string]any {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := []any{}
	for _, f := range a.frameworks {
		list = append(list, map[string]any{"framework_info": f})
	}
	return map[string]any{"frameworks": list}
}

// stateJSON is GET /state in the shape of a Mesos agent's.
func (a *Agent) stateJSON() map[string]any {
	info := a.registration().Info
	attrs := map[string]any{}
	for _, at := range info.Attributes {
		switch {
		case at.Scalar != nil:
			attrs[at.Name] = at.Scalar.Value
		case at.Ranges != nil:
			attrs[at.Name] = rangesText(at.Ranges)
		default:
			attrs[at.Name] = at.GetText().GetValue()
		}
	}
	frameworks := map[string]*stateFramework{}
	for _, c := range a.allTasks() {
		a.framework(frameworks, c.framework).add(c)
	}
	a.mu.Lock()
	done := append([]*container(nil), a.completed...)
	a.mu.Unlock()
	for _, c := range done {
		a.framework(frameworks, c.framework).add(c)
	}
	list := make([]*stateFramework, 0, len(frameworks))
	for _, f := range frameworks {
		f.sort()
		list = append(list, f)
	}
	sort.Slice(list, func(i, k int) bool { return list[i].ID < list[k].ID })
	port := int32(0)
	if info.Port != nil {
		port = *info.Port
	}
	return map[string]any{
		"id": a.ID(), "version": Version, "hostname": info.Hostname, "pid": fmt.Sprintf("slave(1)@127.0.0.1:%d", port), "attributes": attrs,
		"resources": sumResources(info.Resources), "frameworks": list, "completed_frameworks": []any{},
		"flags": map[string]string{"work_dir": a.cfg.Dir, "isolation": "filesystem/linux,docker/volume", "hostname": info.Hostname},
	}
}

type stateFramework struct {
	ID        string           `json:"id"`
	Name      string           `json:"name"`
	User      string           `json:"user"`
	Executors []*stateExecutor `json:"executors"`
	Completed []*stateExecutor `json:"completed_executors"`
}

type stateExecutor struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Source    string         `json:"source"`
	Container string         `json:"container"`
	Directory string         `json:"directory"`
	Type      string         `json:"type"`
	Resources map[string]any `json:"resources"`
	Tasks     []stateTask    `json:"tasks"`
	Queued    []stateTask    `json:"queued_tasks"`
	Completed []stateTask    `json:"completed_tasks"`
}

type stateTask struct {
	ID          string             `json:"id"`
	Name        string             `json:"name"`
	FrameworkID string             `json:"framework_id"`
	ExecutorID  string             `json:"executor_id"`
	AgentID     string             `json:"slave_id"`
	State       string             `json:"state"`
	Resources   map[string]any     `json:"resources"`
	Statuses    []mesos.TaskStatus `json:"statuses"`
}

func (a *Agent) framework(m map[string]*stateFramework, id string) *stateFramework {
	f := m[id]
	if f == nil {
		a.mu.Lock()
		info := a.frameworks[id]
		a.mu.Unlock()
		f = &stateFramework{ID: id, Name: info.Name, User: info.User, Executors: []*stateExecutor{}, Completed: []*stateExecutor{}}
		m[id] = f
	}
	return f
}

func (f *stateFramework) add(c *container) {
	t, over := c.mesosTask()
	task := stateTask{ID: t.TaskID.Value, Name: t.Name, FrameworkID: c.framework, AgentID: c.agent, State: t.GetState().String(),
		Resources: sumResources(t.Resources), Statuses: t.Statuses}
	e := &stateExecutor{ID: t.TaskID.Value, Name: "Command Executor (Task: " + t.TaskID.Value + ")", Source: t.TaskID.Value, Container: c.id, Directory: c.sandbox,
		Type: "DEFAULT", Resources: task.Resources, Tasks: []stateTask{}, Queued: []stateTask{}, Completed: []stateTask{}}
	switch {
	case over && c.isClean():
		e.Completed = append(e.Completed, task)
		f.Completed = append(f.Completed, e)
		return
	case t.GetState() == mesos.TASK_STAGING:
		e.Queued = append(e.Queued, task)
	default:
		e.Tasks = append(e.Tasks, task)
	}
	f.Executors = append(f.Executors, e)
}

func (f *stateFramework) sort() {
	sort.Slice(f.Executors, func(i, k int) bool { return f.Executors[i].ID < f.Executors[k].ID })
}

// sumResources is the short form of resources: scalars added up, ports as text.
func sumResources(list []mesos.Resource) map[string]any {
	sums := map[string]float64{"cpus": 0, "mem": 0, "disk": 0, "gpus": 0}
	out := map[string]any{}
	for _, r := range list {
		switch {
		case r.Scalar != nil:
			sums[r.Name] += r.Scalar.Value
		case r.Ranges != nil:
			out[r.Name] = rangesText(r.Ranges)
		}
	}
	for name, v := range sums {
		out[name] = v
	}
	return out
}

func rangesText(r *mesos.Value_Ranges) string {
	text := "["
	for i, x := range r.Range {
		if i > 0 {
			text += ", "
		}
		text += strconv.FormatUint(x.Begin, 10) + "-" + strconv.FormatUint(x.End, 10)
	}
	return text + "]"
}
