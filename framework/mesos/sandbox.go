package mesos

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/framework/mesos/credential"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

// MaxRead is the most that one ReadSandbox gives, in bytes.
const MaxRead = 64 << 10

// Sandboxes reads files of tasks' sandboxes from their agents' HTTP endpoints: /state tells the directory, /files/read the bytes.
type Sandboxes struct {
	// Credential for agents that ask who reads; nil for none.
	Credential credential.Credential
	// TLS is for agents that serve https; nil means the system's certificates.
	TLS *tls.Config

	once sync.Once
	http *http.Client
	mu   sync.Mutex
	dirs map[state.TaskID]string
}

// Read gives up to MaxRead bytes of a file from offset, and the offset after them; offset -1 gives the size alone. file is relative to the
// sandbox. Invalid for a path that leaves it, NotFound when the agent knows no such task or file, Unavailable when it does not answer.
func (s *Sandboxes) Read(ctx context.Context, agentURL, framework string, task state.TaskID, file string, offset int64) ([]byte, int64, error) {
	if file == "" || path.IsAbs(file) || path.Clean("/"+file) != "/"+file || strings.ContainsRune(file, 0) {
		return nil, 0, fault.New(fault.Invalid, "file %.200q is not a plain path inside the sandbox", file)
	}
	if offset < -1 {
		return nil, 0, fault.New(fault.Invalid, "offset %d", offset)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	dir, err := s.directory(ctx, agentURL, framework, task)
	if err != nil {
		return nil, 0, err
	}
	name := path.Join(dir, file)
	_, size, err := s.readFile(ctx, agentURL, name, -1, 0)
	if err != nil || offset < 0 {
		return nil, size, fault.Op(err, "size of %s of task %s", file, task)
	}
	if offset >= size { // at the end, or the file has become shorter
		return nil, size, nil
	}
	// The length is asked for exactly: the answer is JSON, in which bytes that are no UTF-8 do not keep their number.
	length := min(size-offset, MaxRead)
	data, _, err := s.readFile(ctx, agentURL, name, offset, length)
	if err != nil {
		return nil, 0, fault.Op(err, "read %s of task %s", file, task)
	}
	return []byte(data), offset + length, nil
}

// readFile asks an agent for a part of a file, or, with offset -1, for its size.
func (s *Sandboxes) readFile(ctx context.Context, agentURL, name string, offset, length int64) (string, int64, error) {
	q := url.Values{"path": {name}, "offset": {strconv.FormatInt(offset, 10)}}
	if length > 0 {
		q.Set("length", strconv.FormatInt(length, 10))
	}
	var answer struct {
		Data   string `json:"data"`
		Offset int64  `json:"offset"`
	}
	err := s.get(ctx, agentURL+"/files/read?"+q.Encode(), 1<<20, &answer)
	return answer.Data, answer.Offset, err
}

func (s *Sandboxes) directory(ctx context.Context, agentURL, framework string, task state.TaskID) (string, error) {
	if agentURL == "" {
		return "", fault.New(fault.Unavailable, "the address of the agent of task %s is not known", task)
	}
	s.mu.Lock()
	dir, ok := s.dirs[task]
	s.mu.Unlock()
	if ok {
		return dir, nil
	}
	type executor struct {
		ID        string `json:"id"`
		Directory string `json:"directory"`
	}
	type fw struct {
		ID        string     `json:"id"`
		Executors []executor `json:"executors"`
		Completed []executor `json:"completed_executors"`
	}
	var st struct {
		Frameworks []fw `json:"frameworks"`
		Completed  []fw `json:"completed_frameworks"`
	}
	if err := s.get(ctx, agentURL+"/state", 64<<20, &st); err != nil {
		return "", fault.Op(err, "state of agent %s", agentURL)
	}
	for _, f := range append(st.Frameworks, st.Completed...) {
		if f.ID != framework {
			continue
		}
		for _, e := range append(f.Executors, f.Completed...) {
			if e.ID == string(task) && e.Directory != "" {
				s.remember(task, e.Directory)
				return e.Directory, nil
			}
		}
	}
	return "", fault.New(fault.NotFound, "agent %s has no sandbox of task %s", agentURL, task)
}

// remember keeps directories: they never change. The map is emptied rather than grown without end.
func (s *Sandboxes) remember(task state.TaskID, dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dirs == nil || len(s.dirs) > 10000 {
		s.dirs = make(map[state.TaskID]string)
	}
	s.dirs[task] = dir
}

func (s *Sandboxes) get(ctx context.Context, address string, most int64, into any) error {
	s.once.Do(func() {
		s.http = &http.Client{Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
			TLSClientConfig:     s.TLS,
			MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second,
		}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "agent address")
	}
	resp, err := authorized(s.http, req, s.Credential)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "agent does not answer")
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return fault.New(fault.NotFound, "the agent has no such file")
	case resp.StatusCode == http.StatusBadRequest: // a directory, for one
		return fault.New(fault.Invalid, "the agent refuses: %s", responseText(resp))
	case resp.StatusCode != http.StatusOK:
		return fault.New(fault.Unavailable, "agent answers %d: %s", resp.StatusCode, responseText(resp))
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, most)).Decode(into); err != nil {
		return fault.Wrap(fault.Unavailable, err, "agent's answer")
	}
	return nil
}
