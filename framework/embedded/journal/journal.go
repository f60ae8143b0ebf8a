// Package journal keeps on disk what a restarted agent of the embedded engine has to know: who it is, and of every container what was meant
// to happen, what did, and which status updates have not been acknowledged. An intent is durable before anything is done about it.
package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

// Version is the version of what this package writes. A newer one is refused for that record only.
const Version = 1

// Record is one line of a container's journal. Exactly one field is set.
type Record struct {
	Launch *Launch           `json:"launch,omitempty"` // intent: first line, on disk before anything is done
	Start  *Start            `json:"start,omitempty"`  // the process runs
	Update *mesos.TaskStatus `json:"update,omitempty"` // a status to be delivered until acknowledged
	Ack    []byte            `json:"ack,omitempty"`    // the uuid of a status that need not be sent again
	Clean  bool              `json:"clean,omitempty"`  // no process is left and the volumes were given back
}

// Launch is the intent to run a task in a container.
type Launch struct {
	Version   int            `json:"v"`
	Framework string         `json:"framework"`
	Container string         `json:"container"`
	Agent     string         `json:"agent"`
	Sandbox   string         `json:"sandbox"`
	Task      mesos.TaskInfo `json:"task"`
	// Parent is the container of a pod's executor, for one of its containers.
	Parent string `json:"parent,omitempty"`
}

// Start names the first process of a container: pid and start time together, for a pid alone may be another's.
type Start struct {
	Pid   int    `json:"pid"`
	Ticks uint64 `json:"ticks"`
}

// Identity is what the agent knows of itself, in meta/agent.json.
type Identity struct {
	Version   int                            `json:"v"`
	ID        string                         `json:"id"`
	BootID    string                         `json:"boot_id"`
	Hostname  string                         `json:"hostname"`
	Base      []mesos.Resource               `json:"base"`  // resources as configured, to see a change
	Total     []mesos.Resource               `json:"total"` // with reservations and volumes
	Attrs     []mesos.Attribute              `json:"attributes"`
	Framework map[string]mesos.FrameworkInfo `json:"frameworks"`
}

// Store keeps what recovery needs. With an empty directory it keeps it in memory, for agents without processes.
//
//	<dir>/meta/agent.json                    Identity, replaced whole
//	<dir>/meta/containers/<container>.log    one JSON line a record, appended
//	<dir>/boot                               changes when the "machine" loses power
type Store struct {
	dir string

	mu       sync.Mutex
	identity *Identity         // in memory only
	boot     string            // in memory only
	logs     map[string][]byte // in memory only
}

// Open makes the directories of a store below an agent's directory.
func Open(dir string) (*Store, error) {
	s := &Store{dir: dir, logs: map[string][]byte{}}
	if dir == "" {
		return s, nil
	}
	if err := os.MkdirAll(filepath.Join(dir, "meta", "containers"), 0o755); err != nil {
		return nil, fmt.Errorf("make the agent's directory: %w", err)
	}
	return s, nil
}

func (s *Store) containers() string { return filepath.Join(s.dir, "meta", "containers") }

// LoadIdentity returns nil when this agent never had an id. An error means that it cannot be known, and is fatal.
func (s *Store) LoadIdentity() (*Identity, error) {
	if s.dir == "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.identity, nil
	}
	data, err := os.ReadFile(filepath.Join(s.dir, "meta", "agent.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the agent's Identity: %w", err)
	}
	var id Identity
	if err := json.Unmarshal(data, &id); err != nil {
		return nil, fmt.Errorf("read the agent's Identity: %w", err)
	}
	if id.Version != Version {
		return nil, fmt.Errorf("read the agent's Identity: version %d is not known to this program", id.Version)
	}
	return &id, nil
}

// SaveIdentity replaces what the agent knows of itself.
func (s *Store) SaveIdentity(id Identity) error {
	id.Version = Version
	if s.dir == "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.identity = &id
		return nil
	}
	data, err := json.Marshal(id)
	if err != nil {
		return fmt.Errorf("write the agent's Identity: %w", err)
	}
	return replace(filepath.Join(s.dir, "meta", "agent.json"), data)
}

// ForgetIdentity makes the next start that of a new agent.
func (s *Store) ForgetIdentity() error {
	if s.dir == "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.identity = nil
		return nil
	}
	err := os.Remove(filepath.Join(s.dir, "meta", "agent.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return SyncDir(filepath.Join(s.dir, "meta"))
}

// PowerCycle changes the boot id: the machine of this agent has lost its power.
func (s *Store) PowerCycle(fresh string) error {
	if s.dir == "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.boot = fresh
		return nil
	}
	return replace(filepath.Join(s.dir, "boot"), []byte(fresh+"\n"))
}

// BootID tells one boot of this agent's machine from another: the real machine's, and the power cycles of the pretended one.
func (s *Store) BootID() (string, error) {
	host, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	if s.dir == "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.TrimSpace(string(host)) + "/" + s.boot, nil
	}
	cycle, err := os.ReadFile(filepath.Join(s.dir, "boot"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	return strings.TrimSpace(string(host)) + "/" + strings.TrimSpace(string(cycle)), nil
}

// Journal is the log of one container. It is safe for concurrent use. Appends are in order and durable when they return (acknowledgements lazily).
type Journal struct {
	s    *Store
	name string

	mu   sync.Mutex
	f    *os.File
	size int64 // bytes appended since it was opened or written anew
}

// Create begins a container's journal with its launch record, durable with its directory entry.
func (s *Store) Create(container string, l Launch) (*Journal, error) {
	l.Version = Version
	j := &Journal{s: s, name: container}
	if s.dir == "" {
		return j, j.Append(Record{Launch: &l})
	}
	f, err := os.OpenFile(filepath.Join(s.containers(), container+".log"), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("begin the container's journal: %w", err)
	}
	j.f = f
	if err := j.Append(Record{Launch: &l}); err != nil {
		j.Close()
		return nil, err
	}
	if err := SyncDir(s.containers()); err != nil {
		j.Close()
		return nil, err
	}
	return j, nil
}

// Append writes records in one piece.
func (j *Journal) Append(records ...Record) error {
	var buf bytes.Buffer
	lazy := true
	for _, r := range records {
		data, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("write the container's journal: %w", err)
		}
		buf.Write(data)
		buf.WriteByte('\n')
		lazy = lazy && (r.Ack != nil || r.Clean) // losing one costs a repetition, nothing else
	}
	if j.s.dir == "" {
		j.s.mu.Lock()
		defer j.s.mu.Unlock()
		j.s.logs[j.name] = append(j.s.logs[j.name], buf.Bytes()...)
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil {
		return fmt.Errorf("write the container's journal: %w", os.ErrClosed)
	}
	if _, err := j.f.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("write the container's journal: %w", err)
	}
	j.size += int64(buf.Len())
	if lazy {
		return nil
	}
	if err := j.f.Sync(); err != nil {
		return fmt.Errorf("write the container's journal: %w", err)
	}
	return nil
}

// Long says that it is time to Rewrite: a task whose health changes every second says much.
func (j *Journal) Long() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.size > maxSize
}

// maxSize is how many bytes are appended before a journal is written anew.
const maxSize = 1 << 20

// Rewrite replaces the journal by fewer records that say the same.
func (j *Journal) Rewrite(records []Record) error {
	var buf bytes.Buffer
	for _, r := range records {
		data, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("rewrite the container's journal: %w", err)
		}
		buf.Write(data)
		buf.WriteByte('\n')
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.size = 0 // whatever happens: not again at once
	if j.f == nil {
		return fmt.Errorf("rewrite the container's journal: %w", os.ErrClosed)
	}
	path := filepath.Join(j.s.containers(), j.name+".log")
	if err := replace(path, buf.Bytes()); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("rewrite the container's journal: %w", err)
	}
	j.f.Close()
	j.f = f
	return nil
}

// Close releases the file.
func (j *Journal) Close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f != nil {
		j.f.Close()
		j.f = nil
	}
}

// Remove deletes a container's journal.
func (s *Store) Remove(container string) {
	if s.dir == "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.logs, container)
		return
	}
	_ = os.Remove(filepath.Join(s.containers(), container+".log"))
}

// Recorded is what a journal says, oldest first.
type Recorded struct {
	Container string
	Records   []Record
	Journal   *Journal // open for more
}

// LoadAll reads every journal, in the order of launching. Those that cannot be read are named in bad and left alone.
func (s *Store) LoadAll() (all []Recorded, bad map[string]error, err error) {
	bad = map[string]error{}
	if s.dir == "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		for name, data := range s.logs {
			records, err := parse(data)
			if err != nil {
				bad[name] = err
				continue
			}
			all = append(all, Recorded{name, records, &Journal{s: s, name: name}})
		}
		return all, bad, nil
	}
	entries, err := os.ReadDir(s.containers())
	if err != nil {
		return nil, nil, fmt.Errorf("read the journals: %w", err)
	}
	age := map[string]int64{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".log")
		if !ok {
			continue
		}
		path := filepath.Join(s.containers(), e.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			bad[name] = err
			continue
		}
		records, err := parse(data)
		if err != nil {
			bad[name] = err
			continue
		}
		if len(records) == 0 { // the crash came before the intent was on disk: nothing was done
			_ = os.Remove(path)
			continue
		}
		f, err := reopen(path, data)
		if err != nil {
			bad[name] = err
			continue
		}
		if st, err := e.Info(); err == nil {
			age[name] = st.ModTime().UnixNano()
		}
		all = append(all, Recorded{name, records, &Journal{s: s, name: name, f: f}})
	}
	sort.Slice(all, func(i, k int) bool { return age[all[i].Container] < age[all[k].Container] })
	return all, bad, nil
}

// reopen opens a journal for appending after cutting off a line that a crash has left half written.
func reopen(path string, data []byte) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	if whole := bytes.LastIndexByte(data, '\n') + 1; whole < len(data) {
		if err := f.Truncate(int64(whole)); err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// parse reads the whole lines of a journal. Only the last line may be torn.
func parse(data []byte) ([]Record, error) {
	var records []Record
	lines := bufio.NewReader(bytes.NewReader(data))
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return records, nil
		}
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("journal line %d: %w", n, err)
		}
		if n == 1 && (r.Launch == nil || r.Launch.Version != Version) {
			return nil, fmt.Errorf("journal line 1 is no launch record of version %d", Version)
		}
		records = append(records, r)
	}
}

// replace writes a file whole or not at all, durably.
func replace(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return SyncDir(dir)
}

// SyncDir makes the entries of a directory durable.
func SyncDir(dir string) error {
	h, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer h.Close()
	return h.Sync()
}
