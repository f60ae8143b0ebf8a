package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oklog/run"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/cmd/holdfast/console"
	"github.com/holdfast-io/holdfast/framework"
	"github.com/holdfast-io/holdfast/framework/api"
	"github.com/holdfast-io/holdfast/framework/catalog"
	"github.com/holdfast-io/holdfast/framework/mesos"
	"github.com/holdfast-io/holdfast/framework/mesos/credential"
	"github.com/holdfast-io/holdfast/framework/mesos/task"
	"github.com/holdfast-io/holdfast/framework/nodes"
	"github.com/holdfast-io/holdfast/framework/store"
	"github.com/holdfast-io/holdfast/framework/store/registers"
	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator/lease"
	"github.com/holdfast-io/holdfast/isolator/lease/dial"
	"github.com/holdfast-io/holdfast/scheduler"
)

// frameworkConfig is every setting of `holdfast framework`.
type frameworkConfig struct {
	door                                   doorFlags
	master, listen, dir, authority         string
	role, name, cluster, mesosUser         string
	principal, secretFile, hostname, webui string
	envPrefix, bridgeName, defaultNetwork  string
	origins                                []string
	classes                                string
	policy, minGrade                       string
	store                                  storeFlags
	authorityFiles                         dial.Options
	masterAccess                           masterFlags
	consul                                 consulConfig
	lease                                  timingFlags
	logFormat, logLevel                    string
	failoverTimeout                        time.Duration
	declineFor, holdFor, killRetry         time.Duration
	leaveAhead                             time.Duration
	moreRoles                              []string
	labels                                 map[string]string
	brake                                  brakeFlags
	reconcileMin, reconcileMax             time.Duration
	launchTokens, maxPerOffer, maxVersions int
	maxDeployments                         int
	tokensEvery                            time.Duration
	probes                                 int
	gpu                                    bool
}

func frameworkCommand() *cobra.Command {
	var c frameworkConfig
	var file string
	cmd := &cobra.Command{
		Use:   "framework",
		Short: "Run the Mesos framework: scheduler and REST API",
		Long: "Runs the framework against a Mesos master. Every flag may also be given as a variable HOLDFAST_FRAMEWORK_<FLAG> (upper case, _ for -)\n" +
			"or as a key of the same name in the YAML file of --config. A flag beats a variable, a variable beats the file.\n" +
			"When it ends, tasks go on running; it finds them again when it is started within --failover-timeout.\n\n" +
			"The address it listens on is written to <dir>/listen.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fillFlags(cmd.LocalNonPersistentFlags(), "HOLDFAST_FRAMEWORK_", file); err != nil {
				return err
			}
			return c.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "YAML file with settings, keys as the flags are named")
	f.StringVar(&c.master, "master", "", "Mesos master: host:port, several with commas, http(s) URL, or zk://[user:password@]h1:2181,h2:2181/mesos")
	c.masterAccess.add(f)
	c.consul.flags(f)
	c.door.add(f)
	f.StringVar(&c.listen, "listen", "127.0.0.1:8080", "address of the REST API and page; port 0 takes a free one")
	f.StringVar(&c.dir, "dir", "", "directory for the state")
	c.store.add(f)
	f.StringVar(&c.authority, "authority", "", "lease authority: unix:///path of the socket, zk://hosts/path, consul://host:port/path or consuls://…")
	f.StringVar(&c.authorityFiles.SecretFile, "authority-secret-file", "", "file with user:password for ZooKeeper, or the token for Consul")
	f.StringVar(&c.authorityFiles.CAFile, "authority-ca-file", "", "certificates that consuls:// trusts")
	f.StringVar(&c.authorityFiles.CertFile, "authority-cert-file", "", "client certificate for consuls://")
	f.StringVar(&c.authorityFiles.KeyFile, "authority-key-file", "", "its key")
	f.StringVar(&c.role, "role", "holdfast", "Mesos role to take offers in")
	f.StringToStringVar(&c.labels, "framework-labels", nil, "labels of the framework, shown in Mesos: key=value, with commas")
	f.StringSliceVar(&c.moreRoles, "more-roles", nil, "further roles to take offers in; an app's role picks one; with commas")
	f.StringVar(&c.name, "name", "holdfast", "name of the framework in Mesos")
	f.StringVar(&c.cluster, "cluster", "", "UUID of the cluster; minted at the first start when not given")
	f.StringVar(&c.mesosUser, "mesos-user", "", "user that tasks run as unless the app says so (default: who runs this)")
	f.StringVar(&c.principal, "principal", "", "Mesos principal")
	f.StringVar(&c.secretFile, "secret-file", "", "file with the principal's secret, or a DC/OS service account (JSON with uid, private_key and login_endpoint), whose uid is the principal")
	f.StringVar(&c.hostname, "hostname", "", "host name shown in Mesos (default: this host's)")
	f.StringVar(&c.webui, "webui-url", "", "URL shown in Mesos (default: the listen address)")
	f.DurationVar(&c.failoverTimeout, "failover-timeout", 7*24*time.Hour, "for how long Mesos keeps tasks running without a framework")
	f.StringVar(&c.envPrefix, "env-vars-prefix", "", "stands before HOST and PORT variables of tasks")
	f.StringVar(&c.bridgeName, "mesos-bridge-name", "mesos-bridge", "CNI network for container/bridge with the Mesos containerizer")
	f.StringVar(&c.defaultNetwork, "default-network-name", "", "container network of apps that name none")
	f.StringSliceVar(&c.origins, "access-control-allow-origin", nil, "origins whose web pages may read answers, or *; with commas")
	f.StringVar(&c.classes, "classes", "", "YAML file with classes of volumes that are made if they are not there")
	f.StringVar(&c.policy, "default-policy", "lease", "how claims of volumes without a class are freed when a node is lost: lease or operator")
	f.StringVar(&c.minGrade, "min-grade", "", "weakest fence that policy lease trusts: reset or soft (default: soft with an authority on this machine, reset otherwise)")
	c.lease.add(f)
	c.lease.addWait(f)
	f.DurationVar(&c.declineFor, "decline-for", 10*time.Second, "for how long Mesos keeps an offer away that nothing wants")
	f.DurationVar(&c.holdFor, "hold-for", 15*time.Second, "for how long an offer is held while a volume is claimed")
	f.DurationVar(&c.killRetry, "kill-retry", 10*time.Second, "time until a kill that had no effect is repeated")
	f.DurationVar(&c.reconcileMin, "reconcile-min", time.Second, "shortest time between two reconciliations")
	f.IntVar(&c.launchTokens, "launch-tokens", 0, "at most so many launches begin within --launch-token-refresh-interval; 0: no bound (Marathon: 1000)")
	f.DurationVar(&c.tokensEvery, "launch-token-refresh-interval", 30*time.Second, "see --launch-tokens")
	f.IntVar(&c.maxPerOffer, "max-instances-per-offer", 0, "at most so many instances are launched on one agent's offers at a time; 0: no bound (Marathon: 5)")
	f.IntVar(&c.maxDeployments, "max-running-deployments", 0, "more deployments than these under way are refused; 0: no bound (Marathon: 100)")
	f.IntVar(&c.maxVersions, "max-versions", scheduler.KeptDefs, "how many versions of each app's definition are kept")
	f.IntVar(&c.probes, "health-check-limit", 512, "at most so many of the framework's own health and readiness checks are under way")
	f.DurationVar(&c.reconcileMax, "reconcile-max", time.Minute, "longest time between two reconciliations")
	f.DurationVar(&c.leaveAhead, "leave-ahead", 10*time.Minute, "how long before a planned maintenance an agent is emptied")
	c.brake.add(f)
	f.BoolVar(&c.gpu, "gpu", false, "take offers of agents with GPUs")
	f.StringVar(&c.logFormat, "log-format", "console", "console or json")
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// check refuses what can never work, before anything is opened.
func (c *frameworkConfig) check() error {
	for _, need := range []struct{ value, flag string }{{c.master, "master"}, {c.dir, "dir"}, {c.authority, "authority"}, {c.role, "role"}, {c.name, "name"}} {
		if need.value == "" {
			return console.Usage(fmt.Sprintf("--%s is needed", need.flag))
		}
	}
	switch {
	case c.role == "*" || strings.ContainsAny(c.role, " \t\n"):
		return console.Usage(fmt.Sprintf("--role %q: a role of its own is needed, because Mesos cannot reserve for *", c.role))
	case c.store.check() != nil:
		return c.store.check()
	case c.maxDeployments < 0:
		return console.Usage("--max-running-deployments must not be negative")
	case c.launchTokens < 0 || c.maxPerOffer < 0 || c.launchTokens > 0 && c.tokensEvery < time.Second:
		return console.Usage("--launch-tokens and --max-instances-per-offer must not be negative, --launch-token-refresh-interval is a second or more")
	case c.maxVersions < 2:
		return console.Usage("--max-versions is 2 or more: what is, and what was before")
	case c.probes < 1:
		return console.Usage("--health-check-limit is 1 or more")
	case c.failoverTimeout < 0:
		return console.Usage("--failover-timeout must not be negative")
	case c.policy != "lease" && c.policy != "operator":
		return console.Usage(fmt.Sprintf("--default-policy is %q: lease and operator are known", c.policy))
	case c.minGrade != "" && c.minGrade != "reset" && c.minGrade != "soft":
		return console.Usage(fmt.Sprintf("--min-grade is %q: reset and soft are known", c.minGrade))
	case slices.ContainsFunc(c.origins, func(o string) bool { return !plainOrigin(o) }):
		return console.Usage(fmt.Sprintf("--access-control-allow-origin is %q: * or origins like https://example.com are known", strings.Join(c.origins, ",")))
	}
	if err := c.checkRoles(); err != nil {
		return err
	}
	if err := c.brake.check(); err != nil {
		return err
	}
	if err := c.door.check(); err != nil {
		return err
	}
	return c.consul.check()
}

// fill puts in what depends on this machine.
func (c *frameworkConfig) fill() error {
	if c.mesosUser == "" {
		u, err := user.Current()
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "who runs this is not known: give --mesos-user")
		}
		c.mesosUser = u.Username
	}
	if c.hostname == "" {
		h, err := os.Hostname()
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "the name of this host is not known: give --hostname")
		}
		c.hostname = h
	}
	if c.minGrade == "" {
		c.minGrade = string(lease.GradeReset)
		if dial.OneMachine(c.authority) {
			c.minGrade = string(lease.GradeSoft)
		}
	}
	return nil
}

// plainOrigin tells whether a text is what a browser sends as Origin, or *.
func plainOrigin(text string) bool {
	u, err := url.Parse(text)
	return text == "*" || err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") && u.Scheme+"://"+u.Host == text
}

// run builds the parts and runs them until ctx ends or one of them does.
func (c *frameworkConfig) run(ctx context.Context) error {
	if err := c.check(); err != nil {
		return err
	}
	if err := c.fill(); err != nil {
		return err
	}
	classes, err := readClasses(c.classes)
	if err != nil {
		return err
	}
	log, err := newLogger(c.logFormat, c.logLevel)
	if err != nil {
		return err
	}
	defer log.Sync() //nolint:errcheck // nothing to be done about it
	listener, err := listen(c.listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	back, err := c.store.open(c.dir, c.url(listener.Addr().String()), log)
	if err != nil {
		return err
	}
	defer back.Close()
	st, err := openState(ctx, back, c.cluster, fmt.Sprintf("%s:%d", c.hostname, os.Getpid()))
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	core, operator, err := c.build(st, listener.Addr().String(), registry, log)
	if err != nil {
		return err
	}
	services, err := c.consul.registrar(core, st.Cluster(), registry, log)
	if err != nil {
		return err
	}
	handler := api.New(core, api.Options{Log: log.Named("api"), Hosts: c.hosts(), Consul: consulStatus(services), Operator: operator, Metrics: registry, Origins: c.origins, Abdicate: core.Abdicate,
		DefaultNetwork: c.defaultNetwork, AnyHost: beyond(listener.Addr())})
	between, err := c.door.transport()
	if err != nil {
		return err
	}
	if shared, ok := back.(*registers.Backend); ok {
		handler = &standby{own: handler, back: shared, cluster: st.Cluster(), leading: core.Ready, url: c.url(listener.Addr().String()), hosts: c.hosts(), any: beyond(listener.Addr()), transport: between, log: log.Named("standby")}
	}
	if handler, err = c.door.guard(handler); err != nil {
		return err
	}
	secure, err := c.door.listener(listener)
	if err != nil {
		return err
	}
	if err := announce(c.dir, listener.Addr(), c.door, log); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go seedClasses(ctx, core, classes, log.Named("classes"))
	return actors(ctx, core, services, secure, handler, log)
}

// hosts are the names that people call the API by.
func (c *frameworkConfig) hosts() []string {
	out := append([]string{c.hostname}, c.door.names...)
	if u, err := url.Parse(c.webui); err == nil && u.Hostname() != "" {
		out = append(out, u.Hostname())
	}
	if h, _, err := net.SplitHostPort(c.listen); err == nil && h != "" {
		out = append(out, h)
	}
	return out
}

// build makes the framework out of the settings.
func (c *frameworkConfig) build(st *store.Store, address string, registry prometheus.Registerer, log *zap.Logger) (*framework.Framework, *nodes.Operator, error) {
	secret, err := readSecret(c.secretFile)
	if err != nil {
		return nil, nil, err
	}
	zkSecret, err := readSecret(c.masterAccess.secretFile)
	if err != nil {
		return nil, nil, err
	}
	secure, err := c.masterAccess.config(log)
	if err != nil {
		return nil, nil, err
	}
	who, err := credential.New(c.principal, secret, secure)
	if err != nil {
		return nil, nil, fault.Op(err, "--secret-file")
	}
	webui := c.url(address)
	identity := mesos.Identity{Name: c.name, User: c.mesosUser, Principal: who.Principal(), Hostname: c.hostname, Webui: webui,
		Roles: c.roles(), Labels: c.labels, FailoverTimeout: c.failoverTimeout, GPU: c.gpu}
	client, err := mesos.New(mesos.Config{Master: c.master, MasterSecret: zkSecret, TLS: secure, Info: identity.FrameworkInfo(), Credential: who, Gate: st.Confirm,
		Tasks: task.Encoder{EnvPrefix: c.envPrefix, BridgeName: c.bridgeName, API: webui}, Log: log.Named("mesos")})
	if err != nil {
		return nil, nil, err
	}
	registers, err := dial.Open(c.authority, c.authorityFiles)
	if err != nil {
		return nil, nil, err
	}
	timings := c.lease.timings(c.authority)
	if err := timings.CheckTaker(); err != nil {
		return nil, nil, fault.Op(err, "lease timings")
	}
	by := fmt.Sprintf("framework %s on %s", c.name, c.hostname)
	authority := lease.New(registers, lease.Options{Cluster: st.Cluster(), CallLimit: max(timings.R, 2*time.Second)})
	core, err := framework.New(framework.Config{
		Info: framework.Info{Name: c.name, Version: version, Leader: reached(address, c.hostname), Role: c.role, Roles: several(c.roles()), Hostname: c.hostname, Webui: webui,
			FailoverTimeoutSeconds: c.failoverTimeout.Seconds(), Principal: who.Principal(), User: c.mesosUser, HTTPAddress: reached(address, c.hostname), Authority: withoutSecret(c.authority)},
		Scheduler: scheduler.Config{Role: c.role, Roles: several(c.roles()), Principal: who.Principal(), DefaultPolicy: c.policy, MinGrade: c.minGrade, DeclineFor: c.declineFor,
			Drain: c.consul.drainTime(), HoldFor: c.holdFor, KillRetry: c.killRetry, ReconcileMin: c.reconcileMin, ReconcileMax: c.reconcileMax,
			LaunchTokens: c.launchTokens, TokensEvery: c.tokensEvery, MaxPerOffer: c.maxPerOffer, MaxVersions: c.maxVersions, MaxDeployments: c.maxDeployments, LeaveAhead: c.leaveAhead,
			BrakeShare: c.brake.share, BrakeMin: c.brake.min, BrakeWindow: c.brake.window, BrakeFor: c.brake.lasts()},
		Step:    scheduler.Step,
		Probes:  c.probes,
		Store:   st,
		Standby: c.store.address != "",
		Master:  client,
		Nodes: framework.WithAuthority(authority, st.Cluster(),
			nodes.Config{Timings: timings, MinGrade: lease.Grade(c.minGrade), By: by, Gate: st.Confirm, Log: log.Named("nodes")}),
		Sandboxes: &mesos.Sandboxes{Credential: who, TLS: secure},
		Metrics:   framework.NewMetrics(registry),
		Log:       log,
	})
	return core, &nodes.Operator{Authority: authority, Log: log.Named("operator")}, err
}

// url is where people reach this process, which listens on address.
func (c *frameworkConfig) url(address string) string {
	if c.webui != "" {
		return c.webui
	}
	return c.door.scheme() + "://" + reached(address, c.hostname)
}

// withoutSecret takes user and password out of an address that is shown.
func withoutSecret(address string) string {
	scheme, rest, ok := strings.Cut(address, "://")
	if at := strings.LastIndexByte(rest, '@'); ok && at >= 0 {
		return scheme + "://" + rest[at+1:]
	}
	return address
}

// actors runs the loop and the HTTP server until ctx ends or one of them fails. Tasks are left alone.
func actors(ctx context.Context, core *framework.Framework, services *catalog.Registrar, l net.Listener, h http.Handler, log *zap.Logger) error {
	var g run.Group
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := api.Serve(h, log.Named("http"))
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	g.Add(func() error { return core.Run(ctx) }, func(error) { cancel() })
	if services != nil {
		g.Add(func() error { return services.Run(ctx) }, func(error) { cancel() })
	}
	g.Add(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fault.Wrap(fault.Unavailable, err, "serve the API")
		}
		return nil
	}, func(error) {
		cancel() // ends event streams, which Shutdown would wait for
		end, done := context.WithTimeout(context.Background(), 2*time.Second)
		defer done()
		if server.Shutdown(end) != nil {
			_ = server.Close()
		}
	})
	err := g.Run()
	log.Info("stopped; tasks go on")
	return err
}

// listen opens the API's socket and says what is wrong when it cannot.
func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "listen for the API on %s (is another framework running?)", address)
	}
	return l, nil
}

// announce tells people (log) and the supervisor (<dir>/listen) the address, and warns when strangers can reach it.
func announce(dir string, addr net.Addr, door doorFlags, log *zap.Logger) error {
	log.Info("listening", zap.String("address", addr.String()), zap.String("url", door.scheme()+"://"+addr.String()))
	if beyond(addr) && door.open() {
		log.Warn("THE API CAN BE REACHED FROM OTHER MACHINES, AND IT ASKS NOBODY WHO THEY ARE: whoever reaches it can run commands on the cluster as any user. "+
			"Give --http-credentials-file and --tls-cert-file, put it behind something that checks, or listen on 127.0.0.1.", zap.String("address", addr.String()))
	}
	name := filepath.Join(dir, "listen")
	temp := name + ".new"
	err := os.WriteFile(temp, []byte(addr.String()+"\n"), 0o600)
	if err == nil {
		err = os.Rename(temp, name)
	}
	return fault.Wrap(fault.Unavailable, err, "write the listen address")
}

// readSecret reads a secret's file; a line feed at its end is forgiven.
func readSecret(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return "", fault.Wrap(fault.Invalid, err, "read the secret")
	}
	secret := strings.TrimRight(string(raw), "\r\n")
	if secret == "" || len(secret) > 16<<10 {
		return "", fault.New(fault.Invalid, "secret file %s is empty or larger than 16 KiB", name)
	}
	return secret, nil
}
