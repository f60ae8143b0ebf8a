package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/cmd/holdfast/supervise"
	"github.com/holdfast-io/holdfast/framework/embedded"
	"github.com/holdfast-io/holdfast/framework/embedded/agent"
	"github.com/holdfast-io/holdfast/internal/consulconn"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
	authority "github.com/holdfast-io/holdfast/isolator/lease/embedded"
)

// MaxAgents bounds Config.Agents: each has a process and its share of a block of ports.
const MaxAgents = 50

// Config says what to run. Zero values of Agents, MasterPort and the resources mean the defaults.
type Config struct {
	Dir        string
	Agents     int // default 3
	Port       int // of the API
	MasterPort int // default: any
	// Resources of each agent that is made now; by default sized from the machine, with plenty to spare. Those that
	// were made at an earlier start keep what they have.
	CPUs, MemMB, DiskMB float64
	// Consul is where the framework registers services, "" for nowhere.
	Consul string
	// PoolOptions go behind the nodes' --pool ("backend=loop,fs=xfs"); BackupConfig is their --backup-config, "" for none.
	PoolOptions, BackupConfig string

	Version string
	Log     *zap.Logger
}

func (c *Config) defaults(dir string) error {
	if c.Agents == 0 {
		c.Agents = 3
	}
	if c.Agents < 1 || c.Agents > MaxAgents {
		return fault.New(fault.Invalid, "%d agents: 1 to %d are possible", c.Agents, MaxAgents)
	}
	if c.Port < 1 || c.Port > 65535 || c.MasterPort < 0 || c.MasterPort > 65535 {
		return fault.New(fault.Invalid, "ports are 1 to 65535")
	}
	if c.CPUs < 0 || c.MemMB < 0 || c.DiskMB < 0 {
		return fault.New(fault.Invalid, "resources of an agent cannot be negative")
	}
	if c.Consul != "" {
		if _, err := consulconn.Open(consulconn.Config{Address: c.Consul}); err != nil {
			return err
		}
	}
	// Nothing is enforced here: an agent may offer more than its share of the machine.
	if c.CPUs == 0 {
		c.CPUs = float64(max(8, 4*runtime.NumCPU()))
	}
	if c.MemMB == 0 {
		c.MemMB = 8192
		var info unix.Sysinfo_t
		if unix.Sysinfo(&info) == nil {
			c.MemMB = max(c.MemMB, float64(uint64(info.Totalram)*uint64(info.Unit)>>20)/2)
		}
	}
	if c.DiskMB == 0 {
		c.DiskMB = 20480
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil {
			c.DiskMB = max(c.DiskMB, float64(fs.Bavail*uint64(fs.Bsize)>>20)/2)
		}
	}
	return nil
}

// Cluster is a running cluster.
type Cluster struct {
	cfg    Config
	layout Layout
	log    *zap.Logger
	lock   *os.File
	ports  []*portBlock
	spawn  *supervise.Spawner
	// endAdoption ends the care for orphans.
	endAdoption func()
	clusterID   string

	authority *authority.Server
	doors     []*authority.Listener
	master    *embedded.Master
	served    chan struct{} // closed at the master's end, with
	serveErr  error
	endMaster context.CancelFunc
	nodes     []*node
	framework *supervise.Child
	control   *http.Server
	holdfast  string
	stopOnce  sync.Once
	stopErr   error
}

// Info is <dir>/run/dev.json: how to reach a cluster, and what the next start on the directory wants to know.
type Info struct {
	PID     int    `json:"pid"`
	Cluster string `json:"cluster"`
	API     string `json:"api"`
	Master  string `json:"master"`
	Control string `json:"control"`
	Agents  int    `json:"agents"`
	Version string `json:"version"`
}

// Start takes the directory, cleans up what a killed predecessor left there, and starts everything. On an error nothing is
// left running. Stop must be called in the end.
func Start(ctx context.Context, cfg Config) (_ *Cluster, err error) {
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	layout, err := NewLayout(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if err := cfg.defaults(layout.Dir); err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, layout: layout, log: cfg.Log, served: make(chan struct{})}
	if c.lock, err = layout.lock(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			stopCtx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			_ = c.Stop(stopCtx)
		}
	}()
	for _, step := range []func(context.Context) error{c.prepare, c.startAuthority, c.startMaster, c.startNodes, c.startFramework, c.startControl} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// prepare checks everything that can be wrong before anything is started.
func (c *Cluster) prepare(context.Context) error {
	if err := c.layout.prepare(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "find the holdfast program")
	}
	c.holdfast = self
	if _, err := os.Stat(c.dvdcli()); err != nil {
		return fault.Wrap(fault.Unavailable, err, "dvdcli must lie beside %s (make build)", self)
	}
	// Helpers and watchdogs first, then tasks, those of agents that are not started this time included.
	for _, mark := range []string{c.layout.mark(), c.layout.taskMark()} {
		if killed, err := supervise.KillMarked(mark, 5*time.Second); err != nil {
			return err
		} else if len(killed) > 0 {
			c.log.Warn("killed what an earlier run left behind", zap.Ints("processes", killed))
		}
	}
	if c.clusterID, err = c.mintCluster(); err != nil {
		return err
	}
	if err := checkPort(c.cfg.Port); err != nil {
		return err
	}
	c.spawn = supervise.NewSpawner()
	c.endAdoption, err = supervise.AdoptOrphans()
	return err
}

// mintCluster reads the cluster's UUID or mints it, once for ever: the store, the authority and reservation labels carry it.
func (c *Cluster) mintCluster() (string, error) {
	name := filepath.Join(c.layout.Dir, "cluster")
	raw, err := os.ReadFile(name)
	if err == nil {
		id, perr := uuid.Parse(strings.TrimSpace(string(raw)))
		return id.String(), fault.Wrap(fault.Conflict, perr, "%s does not hold a UUID", name)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fault.Wrap(fault.Unavailable, err, "read the cluster's id")
	}
	id := uuid.NewString()
	return id, fault.Wrap(fault.Unavailable, writeFile(name, []byte(id+"\n")), "write the cluster's id")
}

func (c *Cluster) dvdcli() string { return filepath.Join(filepath.Dir(c.holdfast), "dvdcli") }

func (c *Cluster) startAuthority(ctx context.Context) (err error) {
	c.authority, err = authority.Open(filepath.Join(c.layout.authorityDir(), "registers.db"))
	if err != nil {
		return err
	}
	// Before any node asks for it: a node that finds no root waits and tries again later.
	if _, err := lease.New(c.authority.Registers(), lease.Options{Cluster: c.clusterID}).Init(ctx, c.clusterID); err != nil {
		return fault.Op(err, "set up the lease authority")
	}
	_, err = c.listenAuthority(c.layout.frameworkAuthority())
	return err
}

func (c *Cluster) listenAuthority(path string) (*authority.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fault.Wrap(fault.Unavailable, err, "remove a stale socket")
	}
	l, err := c.authority.Listen(path)
	if err == nil {
		c.doors = append(c.doors, l)
	}
	return l, err
}

func (c *Cluster) startMaster(context.Context) (err error) {
	c.master, err = embedded.New(embedded.Config{Dir: c.layout.engine(), Listen: fmt.Sprintf("127.0.0.1:%d", c.cfg.MasterPort), Logger: c.log.Named("master")})
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "start the engine")
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.endMaster = cancel
	go func() {
		defer close(c.served)
		c.serveErr = c.master.Serve(ctx)
	}()
	return nil
}

func (c *Cluster) startNodes(ctx context.Context) error {
	for i := range c.cfg.Agents {
		n, err := c.newNode(i)
		if err != nil {
			return err
		}
		c.nodes = append(c.nodes, n)
		if err := n.start(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) newNode(i int) (*node, error) {
	name := fmt.Sprintf("agent%d", i+1)
	if err := os.MkdirAll(c.layout.Node(name), 0o711); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "make the directory of %s", name)
	}
	// Mounts of a helper that was killed with its supervisor: nobody uses them, the processes are gone.
	if err := errors.Join(agent.Cleanup(filepath.Join(c.layout.Node(name), "agent")), unmountBelow(c.layout.Node(name))); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "clean up %s", name)
	}
	door, err := c.listenAuthority(c.layout.nodeAuthority(name))
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	m, block, err := openMachine(c.layout.Node(name), machine{CPUs: c.cfg.CPUs, MemMB: c.cfg.MemMB, Disk: c.cfg.DiskMB,
		Zone: fmt.Sprintf("zone%d", 1+i%3), Rack: fmt.Sprintf("rack%d", i+1)})
	if err != nil {
		return nil, fault.Op(err, "agent %s", name)
	}
	c.ports = append(c.ports, block)
	n := &node{name: name, zone: m.Zone, rack: m.Rack, layout: c.layout, log: c.log, spawn: c.spawn, holdfast: c.holdfast, claim: door,
		pool: c.cfg.PoolOptions, backups: c.cfg.BackupConfig, link: c.master.Link(name), boot: uuid.NewString(), state: nodeOff, url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	n.agent, err = agent.New(agent.Config{
		Dir: filepath.Join(c.layout.Node(name), "agent"), Hostname: name, Listen: fmt.Sprintf("127.0.0.1:%d", port),
		Attributes: map[string]string{"rack": n.rack, "zone": n.zone},
		Resources:  agent.Resources{CPUs: m.CPUs, Mem: m.MemMB, Disk: m.Disk, PortsBegin: uint64(m.Ports), PortsEnd: uint64(m.Ports + portsBlock - 1)},
		Dvdcli:     c.dvdcli(), Env: []string{"HOLDFAST_ISOLATOR=" + c.layout.nodeSocket(name)},
		TaskEnv:    c.taskEnv(),
		MountRoots: []string{c.layout.nodes(), c.layout.Pool()},
		Master:     n.link, Logger: c.log.Named("agent"),
	})
	return n, fault.Wrap(fault.Unavailable, err, "make agent %s", name)
}

// taskEnv lets tasks find the examples' programs, which lie beside holdfast, and their scripts.
func (c *Cluster) taskEnv() map[string]string {
	bin := filepath.Dir(c.holdfast)
	examples := os.Getenv("HOLDFAST_EXAMPLES")
	if examples == "" {
		examples = filepath.Join(filepath.Dir(bin), "examples")
	}
	return map[string]string{"PATH": bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOLDFAST_EXAMPLES": examples}
}

func (c *Cluster) startFramework(context.Context) (err error) {
	c.framework, err = supervise.Start(&supervise.Child{Name: "framework", LogFile: c.layout.Log("framework"), Grace: 10 * time.Second, Spawn: c.spawn, Log: c.log,
		Command: func() *exec.Cmd {
			cmd := exec.Command(c.holdfast, "framework",
				"--master", c.master.URL(), "--listen", fmt.Sprintf("127.0.0.1:%d", c.cfg.Port),
				"--dir", c.layout.framework(), "--authority", "unix://"+c.layout.frameworkAuthority(),
				"--cluster", c.clusterID)
			if c.cfg.Consul != "" {
				cmd.Args = append(cmd.Args, "--consul", c.cfg.Consul)
			}
			cmd.Env = append(os.Environ(), c.layout.mark())
			return cmd
		}})
	return err
}

func (c *Cluster) startControl(context.Context) error {
	path := c.layout.controlSocket()
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fault.Wrap(fault.Unavailable, err, "remove a stale socket")
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "listen on the control socket")
	}
	c.control = &http.Server{Handler: c.handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := c.control.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			c.log.Error("control socket", zap.Error(err))
		}
	}()
	return c.writeInfo()
}

// API is the address of the framework's API.
func (c *Cluster) API() string { return fmt.Sprintf("http://127.0.0.1:%d", c.cfg.Port) }

// MasterURL is the address of the engine's master.
func (c *Cluster) MasterURL() string { return c.master.URL() }

// Layout tells where the cluster keeps its things.
func (c *Cluster) Layout() Layout { return c.layout }

// Ended is closed when something has ended that cannot be started again: the engine's master. Stop then says why.
func (c *Cluster) Ended() <-chan struct{} { return c.served }

// Stop ends everything: the framework first, so that it does not take the end of its tasks for failures; then tasks, volumes and
// node helpers; then engine and authority. ctx bounds the patience with tasks, not the cleaning up. What is in the directory stays.
func (c *Cluster) Stop(ctx context.Context) error {
	c.stopOnce.Do(func() { c.stopErr = c.stopAll(ctx) })
	return c.stopErr
}

func (c *Cluster) stopAll(ctx context.Context) error {
	var errs []error
	if c.control != nil {
		errs = append(errs, c.control.Close())
	}
	if c.framework != nil {
		c.framework.Stop()
	}
	ends := make([]error, len(c.nodes))
	var wg sync.WaitGroup
	for i, n := range c.nodes {
		wg.Go(func() { ends[i] = n.shutdown(ctx) })
	}
	wg.Wait()
	errs = append(errs, ends...)
	if c.master != nil {
		c.endMaster()
		<-c.served
		errs = append(errs, c.serveErr)
	}
	for _, door := range c.doors {
		errs = append(errs, door.Close())
	}
	if c.authority != nil {
		errs = append(errs, c.authority.Close())
	}
	if c.spawn != nil {
		c.spawn.Close()
		if c.endAdoption != nil {
			c.endAdoption()
		}
		supervise.ReapAll()
	}
	for _, block := range c.ports {
		errs = append(errs, block.lock.Close())
	}
	// The cluster's sockets are all in a directory of its own.
	errs = append(errs, os.RemoveAll(c.layout.Sockets))
	errs = append(errs, c.lock.Close())
	return errors.Join(errs...)
}

func (c *Cluster) writeInfo() error {
	raw, err := json.MarshalIndent(Info{PID: os.Getpid(), Cluster: c.clusterID, API: c.API(), Master: c.master.URL(), Control: c.layout.controlSocket(),
		Agents: c.cfg.Agents, Version: c.cfg.Version}, "", "  ")
	if err == nil {
		err = writeFile(c.layout.infoFile(), append(raw, '\n'))
	}
	return fault.Wrap(fault.Unavailable, err, "write %s", c.layout.infoFile())
}

func readInfo(l Layout) (Info, error) {
	var info Info
	raw, err := os.ReadFile(l.infoFile())
	if errors.Is(err, os.ErrNotExist) {
		return info, fault.New(fault.NotFound, "no cluster was ever started in %s: is --dir right?", l.Dir)
	}
	if err == nil {
		err = json.Unmarshal(raw, &info)
	}
	return info, fault.Wrap(fault.Internal, err, "read %s", l.infoFile())
}

// writeFile replaces a file so that a crash leaves the old or the new content, whole.
func writeFile(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
