// Package identity says who this node is: its uid, its boot, and the Mesos agent beside it.
package identity

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// NodeUID gives the uid of the node whose state is in dir, and mints it at the first start. A file that is there but unreadable is an
// error (Conflict): a node with a new uid would not know what it holds.
func NodeUID(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "open isolator directory")
	}
	name := filepath.Join(dir, "node-uid")
	raw, err := os.ReadFile(name)
	if err == nil {
		id := strings.TrimSpace(string(raw))
		if _, perr := uuid.Parse(id); perr != nil {
			return "", fault.New(fault.Conflict, "%s does not hold a uid; if this node is to be a new one, remove the whole directory", name)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fault.Wrap(fault.Unavailable, err, "read node uid")
	}
	id := uuid.Must(uuid.NewV7()).String()
	if err := writeFileDurably(name, []byte(id+"\n")); err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "write node uid")
	}
	return id, nil
}

func writeFileDurably(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if serr := f.Sync(); err == nil {
		err = serr
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// KernelBootID reads the id of this boot.
func KernelBootID() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(raw)), fault.Wrap(fault.Unavailable, err, "read boot id")
}

// BootClock is CLOCK_BOOTTIME in nanoseconds.
func BootClock() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}

// Agent is the Mesos agent beside this isolator, as it says itself.
type Agent struct {
	ID       string `json:"id"`
	Hostname string `json:"hostname"`
}

// AskAgent asks a Mesos agent for its id and host name: by GET_AGENT, which is short, or, from one that does not know that call, by
// GET /state, which lists every task.
func AskAgent(ctx context.Context, client *http.Client, base string) (Agent, error) {
	base = strings.TrimSuffix(base, "/")
	var got struct {
		GetAgent struct {
			Info struct {
				ID       struct{ Value string }
				Hostname string
			} `json:"agent_info"`
		} `json:"get_agent"`
	}
	err := agentCall(ctx, client, http.MethodPost, base+"/api/v1", `{"type":"GET_AGENT"}`, &got)
	if info := got.GetAgent.Info; err == nil && info.ID.Value != "" {
		return Agent{ID: info.ID.Value, Hostname: info.Hostname}, nil
	}
	var a Agent
	err = agentCall(ctx, client, http.MethodGet, base+"/state", "", &a)
	return a, err
}

func agentCall(ctx context.Context, client *http.Client, verb, url, body string, into any) error {
	req, err := http.NewRequestWithContext(ctx, verb, url, strings.NewReader(body))
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "agent URL")
	}
	req.Header.Set("Accept", "application/json")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "ask the Mesos agent")
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fault.New(fault.Unavailable, "ask the Mesos agent: %s answered status %d", url, resp.StatusCode)
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(into)
	return fault.Wrap(fault.Unavailable, err, "ask the Mesos agent: %s", url)
}
