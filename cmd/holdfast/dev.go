package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/cmd/holdfast/dev"
	"github.com/holdfast-io/holdfast/framework/api/client"
	"github.com/holdfast-io/holdfast/internal/fault"
)

// stopPatience is how long tasks may take to end when the cluster is stopped.
const stopPatience = 30 * time.Second

func devCommand(c *console.Console) *cobra.Command {
	var cfg dev.Config
	var example string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "A whole cluster on this machine: engine, framework, node helpers; until Ctrl-C",
		Long: "Runs a cluster on this machine, as any user, without Mesos or Docker: an embedded Mesos-compatible engine with several\n" +
			"agents, the framework, and a node helper per agent. State lives under --dir; starting again there resumes.",
		Example: "  holdfast dev --example counter\n  holdfast dev --agents 5 --port 8090 --dir /tmp/second",
		Args:    cobra.ArbitraryArgs,

		SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return console.Group(cmd, args)
			}
			cfg.Version = version
			return runDev(cmd.Context(), c, cfg, example, verbose)
		},
	}
	defaultDir, err := dev.DefaultDir()
	if err != nil {
		defaultDir = ""
	}
	cmd.PersistentFlags().StringVar(&cfg.Dir, "dir", defaultDir, "directory of the cluster's state")
	f := cmd.Flags()
	f.IntVar(&cfg.Agents, "agents", 3, fmt.Sprintf("number of agents, 1 to %d", dev.MaxAgents))
	f.IntVar(&cfg.Port, "port", 8080, "port of the API and the page, on 127.0.0.1")
	f.IntVar(&cfg.MasterPort, "master-port", 0, "port of the engine's master; 0 takes a free one")
	f.Float64Var(&cfg.CPUs, "cpus", 0, "cpus that each new agent offers; 0: plenty")
	f.Float64Var(&cfg.MemMB, "mem", 0, "memory that each new agent offers, in MiB; 0: half of the machine's")
	f.Float64Var(&cfg.DiskMB, "disk", 0, "disk that each new agent offers, in MiB; 0: half of what is free")
	f.StringVar(&cfg.Consul, "consul", "", "register services in this Consul, http://host:port (its other settings: HOLDFAST_FRAMEWORK_CONSUL_… variables)")
	f.StringVar(&cfg.PoolOptions, "pool-options", "", "how volumes are kept, as options of the isolators' --pool: backend=loop,fs=xfs (root; settled when the state is made)")
	f.StringVar(&cfg.BackupConfig, "backup-config", "", "YAML file with repositories for backups, for every node (docs/volumes.md)")
	f.StringVar(&example, "example", "", "submit this example (a directory of examples/) and show it start")
	f.BoolVar(&verbose, "verbose", false, "print the supervisor's own log to standard error instead of <dir>/logs/dev.log")
	cmd.AddCommand(devAgentCommand(c, &cfg.Dir), devFrameworkCommand(c, &cfg.Dir), devStatusCommand(c, &cfg.Dir))
	return cmd
}

func runDev(ctx context.Context, c *console.Console, cfg dev.Config, example string, verbose bool) error {
	if cfg.Dir == "" {
		return console.Usage("no home directory: say where the state goes by --dir")
	}
	app, err := findExample(example)
	if err != nil {
		return err
	}
	layout, err := dev.NewLayout(cfg.Dir)
	if err != nil {
		return err
	}
	var closeLog func()
	if cfg.Log, closeLog, err = supervisorLog(layout, verbose); err != nil {
		return err
	}
	defer closeLog()
	fmt.Fprintf(c.Out, "Starting %d agents, state in %s\n", cfg.Agents, layout.Dir)
	cluster, err := dev.Start(ctx, cfg)
	if err != nil {
		return err
	}
	running := stay(ctx, c, cluster, cfg, app)
	fmt.Fprintln(c.Out, "Stopping: framework, tasks, volumes, node helpers …")
	stopCtx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	if err := cluster.Stop(stopCtx); err != nil {
		cfg.Log.Error("stop", zap.Error(err))
		return errors.Join(running, fault.Op(err, "not everything stopped as it should"))
	}
	fmt.Fprintln(c.Out, "Stopped. The state is kept; starting again on the same directory resumes.")
	return running
}

// stay shows how the cluster comes up and waits for the end.
func stay(ctx context.Context, c *console.Console, cluster *dev.Cluster, cfg dev.Config, app []byte) error {
	api := client.New(cluster.API())
	if err := awaitAPI(ctx, api, cluster.Layout().Log("framework")); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	fmt.Fprintf(c.Out, "API and page  %s\nEngine        %s\n", cluster.API(), cluster.MasterURL())
	// So that the example's instances spread; a node that does not come up is not worth more than a moment.
	nodes, cancel := context.WithTimeout(ctx, 5*time.Second)
	if err := dev.AwaitNodes(nodes, api, cfg.Agents); err != nil && ctx.Err() == nil {
		fmt.Fprintf(c.Err, "holdfast: %v; see %s\n", err, filepath.Dir(cluster.Layout().Log("x")))
	}
	cancel()
	if app != nil {
		if err := showExample(ctx, c, api, cluster.Layout().Dir, app); err != nil && ctx.Err() == nil {
			return err
		}
	}
	if ctx.Err() == nil {
		nextCommands(c, cluster, cfg, console.AppID(app))
	}
	select {
	case <-ctx.Done():
		return nil
	case <-cluster.Ended():
		return fault.New(fault.Internal, "the engine has ended by itself")
	}
}

// awaitAPI waits until the framework answers.
func awaitAPI(ctx context.Context, api *client.Client, log string) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		err := api.Ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "the framework does not come up: %v; the end of %s:\n%s", err, log, tail(log, 10))
		case <-time.After(30 * time.Millisecond):
		}
	}
}

// tail gives the last lines of a file.
func tail(name string, lines int) string {
	raw, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// showExample submits an example, unless it is there, and shows its instances until all run.
func showExample(ctx context.Context, c *console.Console, api *client.Client, dir string, app []byte) error {
	id := console.AppID(app)
	r, err := api.PutApp(ctx, app, client.PutOptions{CreateOnly: true})
	for fault.Is(err, fault.Unavailable) && ctx.Err() == nil { // it answers, but has not read its state yet
		time.Sleep(30 * time.Millisecond)
		r, err = api.PutApp(ctx, app, client.PutOptions{CreateOnly: true})
	}
	switch {
	case fault.Is(err, fault.Exists):
		fmt.Fprintf(c.Out, "App %s is there already and is left as it is.\n", id)
	case err != nil:
		return err
	default:
		c.Warn(r)
		fmt.Fprintf(c.Out, "Submitted app %s\n", id)
	}
	if closed := closedTo(dir); closed != "" && bytes.Contains(app, []byte(`"user"`)) {
		fmt.Fprintf(c.Err, "holdfast: the app's user cannot pass %s on the way to its sandbox: use another --dir, such as /var/lib/holdfast/dev\n", closed)
	}
	began := time.Now()
	view := liveView{out: c.Out}
	for {
		a, err := api.App(ctx, id)
		if err == nil {
			var list []client.Instance
			if list, err = api.Instances(ctx, id); err == nil {
				view.show(list)
				if a.Running >= a.Instances && a.Deployment == "" {
					fmt.Fprintf(c.Out, "All %d instances of %s run (%.1f s).\n", a.Instances, id, time.Since(began).Seconds())
					return nil
				}
			}
		}
		if err != nil && !fault.Is(err, fault.Unavailable) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// liveView shows instances as they change: a table that redraws itself on a terminal, a line for each change elsewhere.
type liveView struct {
	out   io.Writer
	drawn int
	last  map[string]string
}

func (v *liveView) show(list []client.Instance) {
	if console.TerminalWidth(v.out) > 0 {
		var b strings.Builder
		console.PrintInstances(&b, list)
		lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
		if v.drawn > 0 {
			fmt.Fprintf(v.out, "\x1b[%dA", v.drawn)
		}
		for _, l := range lines {
			fmt.Fprintf(v.out, "\r\x1b[K%s\n", console.Cut(l, console.TerminalWidth(v.out)-1))
		}
		v.drawn = len(lines)
		return
	}
	if v.last == nil {
		v.last = map[string]string{}
	}
	for _, i := range list {
		line := strings.TrimRight(fmt.Sprintf("  %s %s %s %s", i.ID, i.Phase, i.Hostname, console.WaitsFor(i)), " ")
		if v.last[i.ID] != line {
			v.last[i.ID] = line
			fmt.Fprintln(v.out, line)
		}
	}
}

func nextCommands(c *console.Console, cluster *dev.Cluster, cfg dev.Config, app string) {
	people, control := os.Args[0], os.Args[0]+" dev"
	if cluster.API() != console.DefaultAPI {
		people += " --api " + cluster.API()
	}
	if d, err := dev.DefaultDir(); err != nil || d != cfg.Dir {
		control += " --dir " + cluster.Layout().Dir
	}
	fmt.Fprintln(c.Out, "\nTry, in another terminal:")
	if app == "" {
		app = "/counter"
		fmt.Fprintf(c.Out, "  %s app add examples/counter/app.json --wait\n", people)
	}
	instance := strings.ReplaceAll(strings.Trim(app, "/"), "/", "_") + ".1"
	for _, line := range []string{people + " instance list", people + " volume list", people + " instance logs -f " + instance,
		control + " agent kill agent1", people + " explain " + instance, people + " app scale " + app + " 5 --wait"} {
		fmt.Fprintln(c.Out, "  "+line)
	}
	fmt.Fprintln(c.Out, "\nCtrl-C stops everything.")
}

// findExample reads the app of an example: beside the program's bin/, or in the current directory.
func findExample(name string) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	if name != filepath.Base(name) || name == "." || name == ".." {
		return nil, console.Usage(fmt.Sprintf("--example is %q: it is the name of a directory of examples/", name))
	}
	var tried []string
	for _, dir := range exampleDirs() {
		file := filepath.Join(dir, name, "app.json")
		body, err := os.ReadFile(file)
		if err == nil {
			return asWhoever(body)
		}
		tried = append(tried, file)
	}
	return nil, fault.New(fault.NotFound, "no example %q: none of %s is there", name, strings.Join(tried, ", "))
}

// asWhoever takes the user out of an app where only root could become that user.
func asWhoever(body []byte) ([]byte, error) {
	if os.Geteuid() == 0 {
		return body, nil
	}
	var app map[string]json.RawMessage
	if err := json.Unmarshal(body, &app); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "read the example")
	}
	delete(app, "user")
	body, err := json.Marshal(app)
	return body, fault.Wrap(fault.Internal, err, "write the example")
}

// closedTo names the first directory on the way to dir that other users cannot pass, "" when there is none. An app's user cannot
// get at its sandbox through it.
func closedTo(dir string) string {
	closed := ""
	for d := dir; d != filepath.Dir(d); d = filepath.Dir(d) {
		if info, err := os.Stat(d); err == nil && info.Mode().Perm()&0o001 == 0 {
			closed = d
		}
	}
	return closed
}

func exampleDirs() []string {
	dirs := []string{"examples"}
	if self, err := os.Executable(); err == nil {
		dirs = append([]string{filepath.Join(filepath.Dir(filepath.Dir(self)), "examples")}, dirs...)
	}
	return dirs
}

func supervisorLog(layout dev.Layout, verbose bool) (*zap.Logger, func(), error) {
	enc := zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig())
	if verbose {
		return zap.New(zapcore.NewCore(enc, zapcore.Lock(os.Stderr), zapcore.DebugLevel)), func() {}, nil
	}
	name := layout.Log("dev")
	if err := os.MkdirAll(filepath.Dir(name), 0o711); err != nil {
		return nil, nil, fault.Wrap(fault.Unavailable, err, "state directory %s cannot be written to (choose another with --dir)", layout.Dir)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Unavailable, err, "state directory %s cannot be written to (choose another with --dir)", layout.Dir)
	}
	return zap.New(zapcore.NewCore(enc, zapcore.AddSync(f), zapcore.InfoLevel)), func() { f.Close() }, nil
}
