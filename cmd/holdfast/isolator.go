package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/oklog/run"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/isolator"
	"github.com/holdfast-io/holdfast/isolator/backup"
	"github.com/holdfast-io/holdfast/isolator/client"
	"github.com/holdfast-io/holdfast/isolator/dockerplugin"
	"github.com/holdfast-io/holdfast/isolator/driver"
	"github.com/holdfast-io/holdfast/isolator/driver/docker"
	"github.com/holdfast-io/holdfast/isolator/driver/pool"
	"github.com/holdfast-io/holdfast/isolator/fence"
	"github.com/holdfast-io/holdfast/isolator/identity"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/dial"
	"github.com/holdfast-io/holdfast/isolator/operation"
	"github.com/holdfast-io/holdfast/isolator/server"
)

// isolatorFlags are the flags of `holdfast isolator`.
type isolatorFlags struct {
	dir, socket, authority, cluster string
	agentURL, hostname, zone        string
	region, bootID, socketGroup     string
	socketMode                      string
	pools, attributes, pluginDirs   []string
	csis                            []string
	noWatchdog, drain, debug        bool
	watchdogUnit                    bool
	deadMan                         string
	deadManTimeout                  time.Duration
	mountWait, unmountWait          time.Duration
	binTime                         time.Duration
	docker                          dockerSocketFlag
	authorityFiles                  dial.Options
	lease                           timingFlags
	backupConfig, config            string
}

// isolatorCommand is `holdfast isolator`: the helper of one node, and verbs to look at it.
func isolatorCommand() *cobra.Command {
	var f isolatorFlags
	cmd := &cobra.Command{
		Use:   "isolator",
		Short: "Mount and unmount volumes on this node for Mesos, and give them up when the node may no longer have them",
		Long: "The helper of one node. dvdcli, which Mesos's docker/volume isolator executes, hands it every mount and unmount; it\n" +
			"takes the volume's claim in the lease authority, mounts through the driver, and keeps a journal.\n\n" +
			"When it ends, what is mounted stays mounted and tasks run on; started again before the lease's deadline it goes on where it\n" +
			"was. With --drain it gives everything back first that no task uses.\n\n" +
			"Every flag can also be given as a variable, HOLDFAST_ISOLATOR_AGENT_URL for --agent-url, or in the YAML file of --config.\n" +
			"A flag beats a variable, a variable beats the file.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fillFlags(cmd.LocalNonPersistentFlags(), "HOLDFAST_ISOLATOR_", f.config); err != nil {
				return err
			}
			f.docker.asked = cmd.Flags().Changed("docker-socket")
			return runIsolator(cmd.Context(), f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.dir, "dir", "/var/lib/holdfast/isolator", "state of this node: uid, journal, mounts")
	fl.StringVar(&f.socket, "socket", client.DefaultSocket, "unix socket to listen on")
	fl.StringVar(&f.authority, "authority", "", "lease authority: unix:///path of the socket, zk://hosts/path, consul://host:port/path or consuls://…")
	fl.StringVar(&f.authorityFiles.SecretFile, "authority-secret-file", "", "file with user:password for ZooKeeper, or the token for Consul")
	fl.StringVar(&f.authorityFiles.CAFile, "authority-ca-file", "", "certificates that consuls:// trusts")
	fl.StringVar(&f.authorityFiles.CertFile, "authority-cert-file", "", "client certificate for consuls://")
	fl.StringVar(&f.authorityFiles.KeyFile, "authority-key-file", "", "its key")
	f.lease.add(fl)
	f.lease.addMount(fl)
	fl.StringVar(&f.cluster, "cluster", "", "refuse an authority of another cluster")
	fl.StringVar(&f.agentURL, "agent-url", "", "endpoint of the Mesos agent on this node, e.g. http://127.0.0.1:5051")
	fl.StringArrayVar(&f.pools, "pool", nil, "pool driver NAME=DIR[,scope=cluster|node][,backend=dir|loop|btrfs][,fs=ext4|xfs][,size=SIZE][,fsck=auto|ask|never][,copies=full][,key-file=FILE|,key-command=PROGRAM]: a directory to slice into volumes; scope says whether all nodes see it, backend and fs are settled when the pool is made, size is that of volumes that ask for none; the rest is in docs/drivers.md (repeatable)")
	fl.StringArrayVar(&f.csis, "csi", nil, "CSI plugin NAME=unix:///path.sock[,controller=unix:///path.sock][,names=DIR][,ids=name][,scope=cluster|zone|node][,secrets=DIR][,freeze=yes][,fs=TYPE][,timeout=60s], driver csi/NAME (repeatable)")
	fl.StringArrayVar(&f.pluginDirs, "plugin-dir", nil, "directory with sockets and specs of Docker volume plugins, instead of Docker's (repeatable)")
	fl.StringVar(&f.docker.path, "docker-socket", dockerplugin.DefaultSocket, "socket on which this isolator is a volume plugin of Docker's, named as the socket; empty: none")
	fl.StringVar(&f.hostname, "hostname", "", "name shown for this node (default: the host's)")
	fl.StringVar(&f.zone, "zone", "", "zone of this node")
	fl.StringVar(&f.region, "region", "", "region of this node")
	fl.StringArrayVar(&f.attributes, "attribute", nil, "attribute KEY=VALUE of this node (repeatable)")
	fl.StringVar(&f.bootID, "boot-id", "", "boot id to go by instead of the kernel's (holdfast dev)")
	fl.StringVar(&f.socketMode, "socket-mode", "0660", "octal mode of the socket: who may open it may mount")
	fl.StringVar(&f.socketGroup, "socket-group", "", "group of the socket")
	fl.BoolVar(&f.noWatchdog, "no-watchdog", false, "run no watchdog process; the node's fence grade is none then")
	fl.BoolVar(&f.watchdogUnit, "watchdog-unit", false, "start no watchdog process because a unit of its own runs it: holdfast isolator watchdog --stay --state <dir>/watchdog")
	fl.StringVar(&f.deadMan, "dead-man", "", "watchdog device of this machine, e.g. /dev/watchdog: the watchdog process feeds it, and the machine is reset when volumes are not known to be given up in time (fence grade reset); --lease-reset-limit must cover it, here and at the framework")
	fl.DurationVar(&f.deadManTimeout, "dead-man-timeout", 0, "after how long without being fed it resets the machine, whole seconds (default: --lease-fence-limit, rounded up)")
	fl.BoolVar(&f.drain, "drain", false, "give back everything that no task uses before ending")
	fl.DurationVar(&f.mountWait, "mount-wait", 100*time.Second, "how long a mount waits for the volume's last users on this node")
	fl.DurationVar(&f.unmountWait, "unmount-wait", 60*time.Second, "how long an unmount waits for users before it is repeated in the background")
	fl.DurationVar(&f.binTime, "bin-time", 24*time.Hour, "how long the pool keeps removed volumes in its bin")
	fl.StringVar(&f.backupConfig, "backup-config", "", "YAML file that names the repositories for backups, with the files of their passwords and keys")
	fl.BoolVar(&f.debug, "debug", false, "log more")
	fl.StringVar(&f.config, "config", "", "YAML file with settings, keys as the flags are named; what may be given several times is a list there")
	cmd.AddCommand(isolatorStatusCommand(), isolatorCheckCommand(), isolatorDrainCommand(), isolatorWatchdogCommand())
	return cmd
}

// isolatorWatchdogCommand is the watchdog process, which the isolator starts by itself.
func isolatorWatchdogCommand() *cobra.Command {
	return &cobra.Command{
		Use: "watchdog", Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			os.Exit(fence.WatchdogMain(args))
			return nil
		},
	}
}

func isolatorStatusCommand() *cobra.Command {
	socket, _ := client.Socket()
	cmd := &cobra.Command{
		Use: "status", Short: "Show what is mounted on this node, for whom, and what is wrong", Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&socket, "socket", socket, "the isolator's socket (HOLDFAST_ISOLATOR)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
		defer cancel()
		st, err := client.New(socket).Status(ctx)
		if err != nil {
			return err
		}
		if o := cmd.Flag("output"); o != nil && o.Value.String() == "json" {
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(st)
		}
		printStatus(cmd, st)
		return nil
	}
	return cmd
}

func printStatus(cmd *cobra.Command, st client.Status) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "node %s (%s), agent %s, generation %d, lease %s\n", st.Node, st.Hostname, orDash(st.AgentID), st.Generation, st.Lease)
	for _, p := range st.Problems {
		fmt.Fprintf(out, "problem: %s\n", p)
	}
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "VOLUME\tPHASE\tEPOCH\tOWNERS\tTASK\tPATH\tBECAUSE")
	for _, v := range st.Volumes {
		because := v.Because
		if v.Level != "" {
			because = strings.TrimSpace(fmt.Sprintf("%s: %s of %s used %s", strings.ReplaceAll(v.Level, "-", " "), volume.Bytes(v.Usage.UsedBytes),
				volume.Bytes(v.Usage.UsedBytes+v.Usage.AvailableBytes), because))
		}
		if v.Retry > 0 {
			because = fmt.Sprintf("%d tries, next %s: %s", v.Retry, v.Next.Format(time.TimeOnly), v.Because)
		}
		fmt.Fprintf(w, "%s/%s\t%s\t%d\t%s\t%s\t%s\t%s\n", v.Driver, v.Name, v.Phase, v.Epoch, orDash(strings.Join(v.Owners, ",")), orDash(v.Task), orDash(v.Path), because)
	}
	_ = w.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func runIsolator(ctx context.Context, f isolatorFlags) error {
	log, err := isolatorLog(f.debug)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	service, registers, err := openIsolator(f, log)
	if err != nil {
		return err
	}
	defer registers.Close()
	defer service.Close()
	srv, err := listenIsolator(service, f, log)
	if err != nil {
		return err
	}
	face, err := listenDocker(service, f, log)
	if err != nil {
		return err
	}
	serve := func(ctx context.Context) error { return serveAll(ctx, srv, face) }
	var g run.Group
	for _, part := range []func(context.Context) error{service.Run, serve} {
		partCtx, cancel := context.WithCancel(ctx)
		g.Add(func() error { return part(partCtx) }, func(error) { cancel() })
	}
	if f.drain {
		// Drain must come before the parts end, so its actor is the one that hears the signal.
		return runDraining(ctx, service, serve)
	}
	return g.Run()
}

// runDraining runs until ctx ends, then empties the node, and only then stops.
func runDraining(ctx context.Context, service *isolator.Service, serve func(context.Context) error) error {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g run.Group
	g.Add(func() error { return service.Run(life) }, func(error) { stop() })
	g.Add(func() error { return serve(life) }, func(error) { stop() })
	g.Add(func() error {
		select {
		case <-ctx.Done():
		case <-life.Done():
			return nil
		}
		limit, cancel := context.WithTimeout(life, 5*time.Minute)
		defer cancel()
		return service.Drain(limit, false)
	}, func(error) { stop() })
	return g.Run()
}

func openIsolator(f isolatorFlags, log *zap.Logger) (*isolator.Service, lease.Registers, error) {
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Invalid, err, "directory %s", f.dir)
	}
	if f.authority == "" {
		return nil, nil, console.Usage("--authority is needed: where the claims are")
	}
	attributes, err := keyValues("--attribute", f.attributes)
	if err != nil {
		return nil, nil, err
	}
	node, err := identity.NodeUID(dir)
	if err != nil {
		return nil, nil, err
	}
	drivers, err := openPools(f.pools, dir, node, f.binTime)
	if err != nil {
		return nil, nil, err
	}
	served, err := openCSI(f.csis, dir, node, log)
	if err != nil {
		return nil, nil, err
	}
	drivers = append(drivers, served...)
	if f.hostname == "" {
		if f.hostname, err = os.Hostname(); err != nil {
			return nil, nil, fault.Wrap(fault.Unavailable, err, "read the host's name")
		}
	}
	timings := f.lease.timings(f.authority)
	if err := timings.CheckHolder(); err != nil {
		return nil, nil, fault.Op(err, "lease timings")
	}
	// Off this machine a node that slept must know it, so its clock goes on in sleep; next door to its authority it sleeps with it.
	clock, watchdogClock := lease.Boottime(), unix.CLOCK_BOOTTIME
	if dial.OneMachine(f.authority) {
		clock, watchdogClock = lease.Monotonic(), unix.CLOCK_MONOTONIC
	}
	registers, err := dial.Open(f.authority, f.authorityFiles)
	if err != nil {
		return nil, nil, err
	}
	var watchdog []string
	if !f.noWatchdog && !f.watchdogUnit {
		exe, err := os.Executable()
		if err != nil {
			return nil, nil, fault.Wrap(fault.Internal, err, "find this program")
		}
		watchdog = []string{exe, "isolator", "watchdog"}
	}
	plugins := docker.DefaultDirs()
	if len(f.pluginDirs) > 0 {
		plugins = docker.Dirs{Sockets: f.pluginDirs, Specs: f.pluginDirs}
	}
	played := ""
	if f.bootID != "" { // one machine plays several nodes
		played = strings.TrimSuffix(strings.TrimPrefix(f.agentURL, "http://"), "/")
	}
	repositories, err := openRepositories(f.backupConfig, dir)
	if err != nil {
		registers.Close()
		return nil, nil, err
	}
	service, err := isolator.Open(isolator.Options{
		Repositories: repositories,
		Dir:          dir, Authority: lease.New(registers, lease.Options{Cluster: f.cluster, CallLimit: max(timings.R, 2*time.Second)}), Drivers: drivers,
		Resolve: func(name string) (driver.Driver, error) {
			if err := plugins.Check(name); err != nil {
				return nil, err
			}
			return docker.New(docker.Options{Name: name, Dirs: plugins, NoIsolators: true})
		},
		Discover: func() []string { return otherPlugins(plugins, f) },
		Timings:  timings, Clock: clock, WatchdogClock: watchdogClock,
		BootID: f.bootID, Log: log, Watchdog: watchdog, WatchdogKept: f.watchdogUnit && !f.noWatchdog,
		DeadMan: f.deadMan, DeadManTimeout: f.deadManTimeout,
		Limits: isolator.Limits{UsersMount: f.mountWait, UsersLeave: f.unmountWait, Bin: f.binTime},
		Describe: isolator.Describe{Hostname: f.hostname, Zone: f.zone, Region: f.region, Attributes: attributes,
			AgentURL: f.agentURL, PlayedAgent: played, Version: version},
	})
	if err != nil {
		registers.Close()
		return nil, nil, err
	}
	return service, registers, nil
}

// openRepositories gives the repositories of --backup-config, nil without one.
func openRepositories(file, dir string) (operation.Repositories, error) {
	if file == "" {
		return nil, nil
	}
	c, err := backup.Read(file)
	if err != nil {
		return nil, err
	}
	e, err := backup.Open(c, filepath.Join(dir, "restic"))
	if err != nil {
		return nil, err
	}
	return e, nil
}

func listenIsolator(s *isolator.Service, f isolatorFlags, log *zap.Logger) (*server.Server, error) {
	mode, err := strconv.ParseUint(f.socketMode, 8, 32)
	if err != nil || mode > 0o777 {
		return nil, console.Usage(fmt.Sprintf("--socket-mode %q is not an octal mode", f.socketMode))
	}
	gid := -1
	if f.socketGroup != "" {
		g, err := user.LookupGroup(f.socketGroup)
		if err != nil {
			return nil, console.Usage(fmt.Sprintf("--socket-group %q is not known on this node", f.socketGroup))
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return nil, fault.Wrap(fault.Internal, err, "group %s", f.socketGroup)
		}
	}
	return server.Listen(s, server.Options{Socket: f.socket, Mode: os.FileMode(mode), Group: gid, Log: log})
}

// optionShape is what looks like an option; a directory whose name ends so must be given another.
var optionShape = regexp.MustCompile(`^[a-z][a-z-]*=`)

// openPools reads the --pool flags: NAME=DIR and options, each ",key=value".
func openPools(flags []string, dir, node string, grace time.Duration) ([]driver.Driver, error) {
	var out []driver.Driver
	for _, p := range flags {
		name, where, ok := strings.Cut(p, "=")
		if !ok {
			return nil, console.Usage(fmt.Sprintf("--pool %q is not NAME=DIR", p))
		}
		o := pool.Options{Name: name, Mounts: isolator.MountsDir(dir), Node: node, Grace: grace}
		for {
			i := strings.LastIndexByte(where, ',')
			known, err := poolOption(&o, where[i+1:])
			if i >= 0 && !known && err == nil && optionShape.MatchString(where[i+1:]) {
				err = fmt.Errorf("%q is no option; there are scope, backend, fs, size, copies, fsck, key-file, key-command", where[i+1:])
			}
			if err != nil {
				return nil, console.Usage(fmt.Sprintf("--pool %s: %v", p, err))
			}
			if i < 0 || !known {
				break
			}
			where = where[:i]
		}
		var err error
		if o.Dir, err = filepath.Abs(where); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "--pool %s", p)
		}
		d, err := pool.Open(o)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// poolOption takes one option of --pool; false when it is none.
func poolOption(o *pool.Options, kv string) (known bool, err error) {
	k, v, ok := strings.Cut(kv, "=")
	if !ok {
		return false, nil
	}
	switch k {
	case "scope":
		o.Scope = v
	case "backend":
		o.Backend = v
	case "fs":
		o.FS = v
	case "size":
		o.Size, err = volume.ParseSize(v)
	case "fsck":
		o.Fsck = v
	case "key-file":
		o.Key.File = v
	case "key-command":
		o.Key.Command = strings.Fields(v)
	case "copies":
		if o.FullCopies = v == "full"; v != "full" && v != "shared" {
			err = fmt.Errorf("copies=%s is neither shared nor full", v)
		}
	default:
		return false, nil
	}
	return true, err
}

func keyValues(flag string, list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, kv := range list {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, console.Usage(fmt.Sprintf("%s %q is not KEY=VALUE", flag, kv))
		}
		out[k] = v
	}
	return out, nil
}

func isolatorLog(debug bool) (*zap.Logger, error) {
	c := zap.NewProductionConfig()
	c.Encoding = "console"
	c.EncoderConfig = zap.NewDevelopmentEncoderConfig()
	c.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	c.DisableStacktrace, c.DisableCaller = true, true
	c.Sampling = nil
	if debug {
		c.Level = zap.NewAtomicLevelAt(zap.DebugLevel)
	}
	log, err := c.Build()
	return log, fault.Wrap(fault.Internal, err, "make the log")
}
