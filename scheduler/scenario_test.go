package scheduler

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/internal/volume"
	"github.com/holdfast-io/holdfast/scheduler/state"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the expected output of the scenario files")

// TestScenarios runs testdata/*.txt: a command, a line of four dashes, what Step planned, an empty line. `go test ./scheduler -rewrite`
// writes the output anew; read the difference before you commit it. scenario.do lists the commands.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenario files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runScenario(t, file) })
	}
}

func runScenario(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := newScenario()
	var out strings.Builder
	lines := strings.Split(string(text), "\n")
	for n := 0; n < len(lines); n++ {
		line := lines[n]
		if line == "" || strings.HasPrefix(line, "#") {
			out.WriteString(line + "\n")
			continue
		}
		got, err := s.do(line)
		if err != nil {
			t.Fatalf("%s:%d: %s: %v, after\n%s", file, n+1, line, err, out.String()[max(0, out.Len()-6000):])
		}
		out.WriteString(line + "\n----\n" + got)
		if n+1 < len(lines) && lines[n+1] == "----" {
			for n++; n+1 < len(lines) && lines[n+1] != ""; n++ {
			}
		}
	}
	now := strings.TrimRight(out.String(), "\n") + "\n"
	if *rewrite {
		if err := os.WriteFile(file, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if now != string(text) {
		t.Errorf("%s differs; see the difference with: go test ./scheduler -rewrite && git diff\n%s", file, firstDifference(string(text), now))
	}
}

func firstDifference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	for n := range min(len(a), len(b)) {
		if a[n] != b[n] {
			return fmt.Sprintf("line %d\nwant: %s\ngot:  %s", n+1, a[n], b[n])
		}
	}
	return "one is longer"
}

// scenario is a framework's memory and the calls that have not been answered yet.
type scenario struct {
	s     *state.State
	cfg   Config
	start time.Time
	now   time.Time
	steps uint64
	alias map[string]string
	count map[string]int
	// What the last calls left to be answered.
	grants   []Grant
	requests []Call
	offers   int
	nodes    map[string]*state.Node
	books    map[state.AgentID]*sAgent // agents that keep books
	answers  []OperationStatus
	events1  []Event // what the master says of launches that it refused
	lose     string  // "", "commit": the next plan is lost; "calls": its calls are
}

func newScenario() *scenario {
	start := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	return &scenario{s: state.New(), start: start, now: start, alias: map[string]string{}, count: map[string]int{}, nodes: map[string]*state.Node{},
		cfg: Config{Role: "holdfast", DefaultPolicy: "lease", MinGrade: "soft", DeclineFor: 2 * time.Minute, HoldFor: 5 * time.Second, KillRetry: 10 * time.Second,
			ReconcileMin: time.Second, ReconcileMax: 10 * time.Second}}
}

type args struct {
	list  []string
	named map[string]string
}

func (a args) num(name string, otherwise float64) float64 {
	if v, err := strconv.ParseFloat(a.named[name], 64); err == nil {
		return v
	}
	return otherwise
}

func (a args) has(word string) bool {
	for _, v := range a.list {
		if v == word {
			return true
		}
	}
	return false
}

func parse(line string) (string, args) {
	a := args{named: map[string]string{}}
	words := strings.Fields(line)
	for _, word := range words[1:] {
		if k, v, ok := strings.Cut(word, "="); ok && !strings.HasPrefix(k, "/") {
			a.named[k] = v
		} else {
			a.list = append(a.list, word)
		}
	}
	return words[0], a
}

// do runs one command:
//
//	loaded | subscribed ID | disconnected | stopped REASON | tick | time +5s
//	nodes NAME[:dead|:draining|:suspect|:nodriver]…     the nodes beside the agents of those names
//	claims [all] REF=STATE(EPOCH)[@NODE]…               claim records, seen
//	offer AGENT [cpus=4 mem=1024 disk=1000 ports=31000-31009 role=* zone=Z attr=K:V] …
//	app ID [n=1 volume=NAME shared drain=5s cpus=… cmd=… inactive=… expunge=… never kill=OLDEST_FIRST serial partition=N mininst=N maxinst=N probed checked
//	readiness] | scale ID N | restart ID | remove ID [wipe] | force as a word of these
//	status INSTANCE STATE [healthy=…] [task=ID] [away]  of the instance's current run, of the task named, or of its first run that is away
//	scalekill ID INSTANCE… | pause|resume ID|INSTANCE (a deployment's app, or an instance) | replace INSTANCE
//	probe INSTANCE [healthy=…] [ready] [kill=REASON]     what the framework's own checks say
//	granted [REF…] | refused [REF…] | created [REF…] | uncreated REF class=… | gone REF | removed REF
//	teardown [force] | startover | callfailed teardown|revive|suppress|decline [OFFER…] | acceptfailed INSTANCE [unknown]
//	node NAME [cordon|drain|decommission] [reason=…] | freeze REASON [for=1h] | thaw | inverse AGENT IN | rescindinverse AGENT
//	(offer … window=30m: of the last agent named)
//	agent NAME [cpus= mem= disk= mount= path= reserved=ROLE foreign leftover]   an agent that keeps books: `offer NAME` offers what is free
//	failing AGENT OPERATION REASON | working AGENT | reboot AGENT | operation [lost|state=…] | opsfailed INSTANCE [unknown] | release INSTANCE [forget] | wipe INSTANCE
//	cluster NAME                                        names the cluster, before reservations
//	agentlost AGENT | rescind OFFER | lose commit|calls | crash | show instances|volumes|why|offers|deployments|nodes
func (s *scenario) do(line string) (string, error) {
	cmd, a := parse(line)
	switch cmd {
	case "cluster":
		s.s.Apply([]state.Write{{Kind: state.KindFramework, Value: &state.Framework{Cluster: a.list[0], Rev: 1}}})
		return "", nil
	case "agent":
		return "", s.agentOf(a)
	case "failing":
		s.books[state.AgentID(a.list[0])].failed[a.list[1]] = strings.Join(a.list[2:], " ")
		return "", nil
	case "reboot": // its tasks are gone
		for task := range s.books[state.AgentID(a.list[0])].used {
			s.released(state.AgentID(a.list[0]), task)
		}
		return "", nil
	case "working":
		s.books[state.AgentID(a.list[0])].failed = map[string]string{}
		return "", nil
	case "time":
		d, err := time.ParseDuration(strings.TrimPrefix(a.list[0], "+"))
		s.now = s.now.Add(d)
		return "", err
	case "lose":
		s.lose = a.list[0]
		return "", nil
	case "crash":
		return s.crash(), nil
	case "show":
		return s.show(a.list), nil
	case "set":
		return "", s.set(a)
	}
	events, err := s.events(cmd, a)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, e := range events {
		out.WriteString(s.step(e))
	}
	return out.String(), nil
}

func (s *scenario) set(a args) error {
	for k, v := range a.named {
		if k == "roles" {
			s.cfg.Roles = strings.Split(v, ",")
			continue
		}
		switch n := int(a.num(k, 0)); k {
		case "tokens":
			s.cfg.LaunchTokens = n
			continue
		case "deployments":
			s.cfg.MaxDeployments = n
			continue
		case "peroffer":
			s.cfg.MaxPerOffer = n
			continue
		}
		d, err := time.ParseDuration(v)
		if err != nil {
			return err
		}
		switch k {
		case "holdfor":
			s.cfg.HoldFor = d
		default:
			return fmt.Errorf("no setting %s", k)
		}
	}
	return nil
}

// crash loses everything but the durable records, and the answers under way.
func (s *scenario) crash() string {
	s.s = durable(s.s)
	s.grants, s.requests = nil, nil
	return s.step(Loaded{})
}

// durable is the state as it is read back from the store.
func durable(s *state.State) *state.State {
	n := state.New()
	for app, byVersion := range s.Defs {
		for v, d := range byVersion {
			n.Apply([]state.Write{{Kind: state.KindDef, ID: state.DefID(app, v), Value: d}})
		}
	}
	var writes []state.Write
	if s.Framework != nil {
		writes = append(writes, state.Write{Kind: state.KindFramework, Value: s.Framework})
	}
	for id, v := range s.Apps {
		writes = append(writes, state.Write{Kind: state.KindApp, ID: string(id), Value: v})
	}
	for id, v := range s.Instances {
		writes = append(writes, state.Write{Kind: state.KindInstance, ID: string(id), Value: v})
	}
	for id, v := range s.Volumes {
		writes = append(writes, state.Write{Kind: state.KindVolume, ID: string(id), Value: v})
	}
	for id, v := range s.Groups {
		writes = append(writes, state.Write{Kind: state.KindGroup, ID: string(id), Value: v})
	}
	for id, v := range s.Orders {
		writes = append(writes, state.Write{Kind: state.KindOrder, ID: id, Value: v})
	}
	for id, v := range s.Operations {
		writes = append(writes, state.Write{Kind: state.KindOperation, ID: id, Value: v})
	}
	if s.Hold != nil {
		writes = append(writes, state.Write{Kind: state.KindHold, Value: s.Hold})
	}
	for id, v := range s.Deployments {
		writes = append(writes, state.Write{Kind: state.KindDeployment, ID: string(id), Value: v})
	}
	for id, v := range s.Reserved {
		writes = append(writes, state.Write{Kind: state.KindReserved, ID: string(id), Value: v})
	}
	n.Apply(writes)
	return n
}

func (s *scenario) step(e Event) string {
	s.steps++
	env := Env{Now: s.now, Config: s.cfg, Entropy: sha256.Sum256([]byte(strconv.FormatUint(s.steps, 10)))}
	p := Step(s.s, e, env)
	var out strings.Builder
	lost := s.lose
	s.lose = ""
	for _, w := range p.Writes {
		if w.Kind == state.KindAgent || w.Kind == state.KindNode || w.Kind == state.KindDef || w.Kind == state.KindRefusal || w.Kind == state.KindTodo || w.Kind == state.KindUnanswered {
			continue
		}
		fmt.Fprintf(&out, "write %s\n", s.write(w))
	}
	if lost == "commit" {
		fmt.Fprintf(&out, "(the commit is lost)\n")
		return s.tidy(out.String())
	}
	s.s.Apply(p.Writes)
	for _, c := range p.Calls {
		if lost == "calls" {
			fmt.Fprintf(&out, "(lost) ")
		}
		fmt.Fprintf(&out, "call %s\n", s.call(c))
		if lost == "calls" {
			continue
		}
		switch c := c.(type) {
		case Grant:
			s.grants = append(s.grants, c)
		case CreateVolume, RemoveVolumeData:
			s.requests = append(s.requests, c)
		case Accept:
			s.accepted(c)
		}
	}
	if p.Reply != nil {
		if p.Reply.Err != nil {
			fmt.Fprintf(&out, "refused %s: %v\n", fault.ClassOf(p.Reply.Err), p.Reply.Err)
		} else {
			fmt.Fprintf(&out, "reply deployment=%s version=%s\n", p.Reply.Deployment, p.Reply.Version)
		}
	}
	if !p.Wake.IsZero() {
		fmt.Fprintf(&out, "wake %s\n", s.at(p.Wake))
	}
	return s.tidy(out.String())
}

func (s *scenario) at(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return "+" + t.Sub(s.start).String()
}

var (
	uuidShape  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`)
	nonceShape = regexp.MustCompile(`\b[0-9a-f]{32}\b`)
	taskShape  = regexp.MustCompile(`([a-z0-9_]+\.\d+\.\d+)-[0-9a-f]{6}\b`)
	stampShape = regexp.MustCompile(`2026-01-0\dT[0-9:.]+Z`)
)

// tidy replaces what chance made with short names in the order of their appearance.
func (s *scenario) tidy(text string) string {
	name := func(kind string) func(string) string {
		return func(v string) string {
			if s.alias[v] == "" {
				s.count[kind]++
				s.alias[v] = fmt.Sprintf("%s%d", kind, s.count[kind])
			}
			return s.alias[v]
		}
	}
	text = uuidShape.ReplaceAllStringFunc(text, name("uuid"))
	text = nonceShape.ReplaceAllStringFunc(text, name("nonce"))
	text = taskShape.ReplaceAllString(text, "$1")
	return stampShape.ReplaceAllStringFunc(text, func(v string) string {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			return v
		}
		return s.at(t)
	})
}

func (s *scenario) write(w state.Write) string {
	if w.Value == nil {
		return fmt.Sprintf("%s %s removed", w.Kind, w.ID)
	}
	switch v := w.Value.(type) {
	case *state.Instance:
		return "instance " + s.instance(v)
	case *state.Volume:
		return "volume " + s.volume(v)
	case *state.Operation:
		return s.volumeOperation(v)
	case *state.App:
		text := fmt.Sprintf("app %s version=%s instances=%d", v.ID, v.Version, v.Instances)
		if v.Removed {
			text += " removed"
		}
		if v.Base != "" {
			text += " base=" + v.Base
		}
		if len(v.Alike) > 0 {
			text += fmt.Sprintf(" alike=%v", v.Alike)
		}
		if p := v.Primary; p != nil {
			text += fmt.Sprintf(" primary=%s/%s term=+%d", p.Instance, p.Task, int64(p.Term)-s.start.Unix())
			if !p.Named {
				text += " unnamed"
			}
		}
		if len(v.Skip) > 0 {
			text += fmt.Sprintf(" skip=%v", v.Skip)
		}
		if v.Deployment != "" {
			text += " deployment=" + string(v.Deployment)
		}
		return text
	case *state.Deployment:
		var steps []string
		for n, st := range v.Steps {
			var acts []string
			for _, act := range st.Actions {
				acts = append(acts, act.Action+" "+string(act.App))
			}
			mark := ""
			if n == v.Step {
				mark = "*"
			}
			steps = append(steps, mark+strings.Join(acts, ", "))
		}
		paused := ""
		if v.Paused {
			paused = " (paused)"
		}
		return fmt.Sprintf("deployment %s: %s%s", v.ID, strings.Join(steps, " | "), paused)
	case *state.Session:
		return fmt.Sprintf("session connected=%v reconciled=%v again=%s authority=%v suppressed=%v stopped=%q", v.Connected, v.Reconciled, s.at(v.ReconcileAt), v.AuthoritySeen, v.Suppressed, v.Stopped)
	case *state.Framework:
		return "framework id=" + v.ID
	case *state.Offer:
		return fmt.Sprintf("offer %s held for %q", v.ID, v.HeldFor)
	case *state.Claim:
		return fmt.Sprintf("claim %s %s(%d) node=%s", v.Ref, v.State, v.Epoch, v.Node)
	case *state.Why:
		return "why " + why(v)
	case *state.NodeOrder:
		return fmt.Sprintf("node order %s: %s", v.ID, v.State())
	case *state.Hold:
		return fmt.Sprintf("hold %q until %s", v.Why().Text, s.at(v.Why().Until))
	case *state.Leaving:
		return fmt.Sprintf("leaving %s %v", v.Agent, v.Waits)
	case *state.Reserved:
		return "reserved " + s.reserved(v)
	case *state.Leftover:
		return fmt.Sprintf("leftover %s: %v: %s", w.ID, v.Volumes, v.Reason)
	case *state.Short:
		return fmt.Sprintf("short %s: %v", w.ID, v.Reasons[0].Text)
	case *state.StrangeTask:
		return fmt.Sprintf("strange %s %s: %s, kill again %s", v.Task, v.State, v.Reason, s.at(v.KillAfter))
	}
	return fmt.Sprintf("%s %s", w.Kind, w.ID)
}

func why(v *state.Why) string {
	text := fmt.Sprintf("%s: %s", v.Instance, v.Summary)
	for _, a := range v.Agents {
		var rs []string
		for _, r := range a.Reasons {
			rs = append(rs, r.Code+": "+r.Text)
		}
		text += fmt.Sprintf("\n        %s: %s", a.Hostname, strings.Join(rs, "; "))
	}
	return text
}

func (s *scenario) instance(v *state.Instance) string {
	text := fmt.Sprintf("%s %s/%s", v.ID, v.Goal, v.Phase)
	if v.Run != nil {
		text += fmt.Sprintf(" task=%s on=%s", v.Run.Task, v.Run.Agent)
		for _, g := range v.Run.Claims {
			text += fmt.Sprintf(" epoch=%d", g.Epoch)
			if g.Freed {
				text += "(freed)"
			} else if g.Done {
				text += "(granted)"
			}
		}
	}
	for _, r := range v.Away {
		text += fmt.Sprintf(" away=%s until %s", r.Task, s.at(r.ForgetAt))
	}
	if v.Moving != "" {
		text += " moving from " + string(v.Moving)
	}
	if v.Failures > 0 {
		text += fmt.Sprintf(" failures=%d", v.Failures)
	}
	if !v.WakeAt.IsZero() {
		text += " wake=" + s.at(v.WakeAt)
	}
	if v.Paused {
		text += " paused"
	}
	if v.Pin != "" {
		text += " pinned=" + string(v.Pin)
	}
	if v.Run != nil && v.Run.Idle {
		text += " idle"
	}
	if !v.DrainUntil.IsZero() {
		text += " draining until " + s.at(v.DrainUntil)
	}
	if v.KillReason != "" {
		text += " because: " + v.KillReason
	}
	if n := len(v.Failovers); n > 0 {
		text += " failover[" + s.failover(v.Failovers[n-1]) + "]"
	}
	return text
}

func (s *scenario) failover(f *state.Failover) string {
	text := fmt.Sprintf("of %s lost=%s", f.Task, s.at(f.LostAt))
	for _, t := range []struct {
		name string
		at   time.Time
	}{{"revoked", f.RevokedAt}, {"dead", f.DeadAt}, {"free", f.FreeAt}, {"offered", f.OfferedAt}, {"launched", f.LaunchedAt}, {"running", f.RunningAt}, {"up", f.UpAt}} {
		if !t.at.IsZero() {
			text += " " + t.name + "=" + s.at(t.at)
		}
		if t.name == "free" && f.FreedBy != "" {
			text += " by " + f.FreedBy
		}
	}
	if f.End != "" {
		text += " " + f.End
	}
	return text
}

func (s *scenario) volume(v *state.Volume) string {
	text := fmt.Sprintf("%s %s uid=%s", v.Ref, v.Phase, v.UID)
	if v.Epoch > 0 {
		text += fmt.Sprintf(" epoch=%d", v.Epoch)
	}
	if v.Op != "" {
		text += " op=" + v.Op
	}
	if v.Error != "" {
		text += fmt.Sprintf(" error=%q retry=%s", v.Error, s.at(v.RetryAt))
	}
	return text
}

func (s *scenario) call(c Call) string {
	switch c := c.(type) {
	case Accept:
		var launches []string
		for _, l := range c.Launches {
			var res []string
			for _, r := range l.Resources {
				if r.Name == "ports" {
					res = append(res, fmt.Sprintf("ports%v", r.Ranges))
				} else if len(r.Reservations) > 0 && r.Reservations[len(r.Reservations)-1].Dynamic {
					res = append(res, resourceText(r))
				} else {
					res = append(res, fmt.Sprintf("%s=%g", r.Name, r.Scalar))
				}
			}
			var vols []string
			for _, v := range l.Volumes {
				vols = append(vols, fmt.Sprintf("%s epoch=%s", v.Ref, v.Options["holdfast.epoch"]))
			}
			launches = append(launches, fmt.Sprintf("\n     launch %s with %s volumes %v", l.Run.Task, strings.Join(res, " "), vols))
		}
		return fmt.Sprintf("ACCEPT %v of %s, refuse the rest for %s%s%s", c.Offers, c.Agent, c.Refuse, operations(c.Operations), strings.Join(launches, ""))
	case Decline:
		return fmt.Sprintf("DECLINE %v for %s", c.Offers, c.Refuse)
	case Kill:
		return fmt.Sprintf("KILL %s on %s", c.Task, c.Agent)
	case Acknowledge:
		return fmt.Sprintf("ACKNOWLEDGE %s %s", c.Task, c.UUID)
	case Reconcile:
		var tasks []string
		for _, t := range c.Tasks {
			tasks = append(tasks, string(t.Task))
		}
		if len(tasks) == 0 {
			return "RECONCILE everything"
		}
		return "RECONCILE " + strings.Join(tasks, " ")
	case AcknowledgeOperation:
		return fmt.Sprintf("ACKNOWLEDGE operation %s", c.ID)
	case ReconcileOperations:
		return fmt.Sprintf("RECONCILE operations %v", c.Operations)
	case Revive:
		return strings.TrimSuffix("REVIVE "+strings.Join(c.Roles, " "), " ")
	case Suppress:
		return strings.TrimSuffix("SUPPRESS "+strings.Join(c.Roles, " "), " ")
	case EndFramework:
		return "TEARDOWN"
	case RetireNode:
		return fmt.Sprintf("retire node %s generation=%d", c.Node, c.Generation)
	case HoldTaker:
		return fmt.Sprintf("hold the taker: %q", c.Reason)
	case AcceptInverse:
		return fmt.Sprintf("ACCEPT_INVERSE_OFFERS %v", c.IDs)
	case DeclineInverse:
		return fmt.Sprintf("DECLINE_INVERSE_OFFERS %v for %s", c.IDs, c.Refuse)
	case Grant:
		return fmt.Sprintf("grant %s epoch=%d nonce=%s for %s to %s", c.Ref, c.Epoch, c.Nonce, c.Owner, c.Agent)
	case CancelGrant:
		return fmt.Sprintf("cancel grant of %s epoch=%d nonce=%s", s.ref(c.Volume), c.Epoch, c.Nonce)
	case Revoke:
		return fmt.Sprintf("revoke %s epoch=%d", s.ref(c.Volume), c.Epoch)
	case CreateVolume:
		return fmt.Sprintf("create %s op=%s on %s", c.Volume.Ref, c.Op, c.Node)
	case RemoveVolumeData:
		return fmt.Sprintf("remove data of %s op=%s on %s", c.Volume.Ref, c.Op, c.Node)
	case AskNode:
		return fmt.Sprintf("ask %s for operation %s: %s %s", c.Operation.Node, c.Operation.ID, c.Operation.Kind, c.Operation.Ref)
	case DropClaim:
		return fmt.Sprintf("drop the claim of %s", c.Volume)
	case ForgetRequest:
		return fmt.Sprintf("forget request op=%s of %s", c.Op, c.Node)
	}
	return fmt.Sprintf("%T", c)
}

func (s *scenario) ref(uid state.VolumeUID) string {
	if v := s.s.Volumes[uid]; v != nil {
		return v.Ref.String()
	}
	return string(uid)
}

func (s *scenario) events(cmd string, a args) ([]Event, error) {
	one := func(e Event) ([]Event, error) { return []Event{e}, nil }
	switch cmd {
	case "loaded":
		return one(Loaded{})
	case "subscribed":
		return one(Subscribed{FrameworkID: a.list[0], Master: "master:5050", Silent: a.has("silent")})
	case "disconnected":
		return one(Disconnected{Reason: "connection reset"})
	case "operation":
		return s.operation(a)
	case "opsfailed":
		return s.opsFailed(a)
	case "release":
		return s.release(a)
	case "wipe":
		return one(RestartInstance{Instance: state.InstanceID(a.list[0]), Wipe: true})
	case "stopped":
		reason := strings.Join(a.list, " ")
		return one(Stopped{Reason: reason, Over: strings.Contains(reason, "removed")})
	case "tick":
		return one(Tick{})
	case "agentlost":
		return one(AgentLost{Agent: state.AgentID(a.list[0])})
	case "rescind":
		return one(Rescinded{Offer: a.list[0]})
	case "authoritylost":
		return one(AuthorityLost{Reason: strings.Join(a.list, " ")})
	case "nodes":
		return one(s.nodesSeen(a))
	case "claims":
		return s.claimsSeen(a)
	case "offer":
		return one(s.offer(a))
	case "status":
		return s.status(a)
	case "app":
		return one(s.app(a))
	case "scale":
		n, err := strconv.Atoi(a.list[1])
		return []Event{ScaleApp{App: state.AppID(a.list[0]), Instances: n, Force: a.has("force")}}, err
	case "scalekill":
		e := ScaleApp{App: state.AppID(a.list[0])}
		for _, id := range a.list[1:] {
			e.Kill = append(e.Kill, state.InstanceID(id))
		}
		return one(e)
	case "yield":
		p := s.s.Apps[state.AppID(a.list[0])].Primary
		return one(YieldPrimary{App: state.AppID(a.list[0]), Task: p.Task, Term: p.Term})
	case "pause", "resume":
		if strings.HasPrefix(a.list[0], "/") {
			return one(PauseDeployment{Deployment: s.s.Apps[state.AppID(a.list[0])].Deployment, Resume: cmd == "resume"})
		}
		return one(PauseInstance{Instance: state.InstanceID(a.list[0]), Resume: cmd == "resume"})
	case "replace":
		return one(ReplaceInstance{Instance: state.InstanceID(a.list[0])})
	case "probe":
		return one(s.probe(a))
	case "restart":
		return one(RestartApp{App: state.AppID(a.list[0]), Force: a.has("force")})
	case "remove":
		return one(RemoveApp{App: state.AppID(a.list[0]), Wipe: a.has("wipe"), Force: a.has("force")})
	case "restartinstance":
		return one(RestartInstance{Instance: state.InstanceID(a.list[0])})
	case "move":
		return one(MoveInstance{Instance: state.InstanceID(a.list[0])})
	case "resetdelay":
		return one(ResetDelay{App: state.AppID(a.list[0])})
	case "node":
		e := OrderNode{Node: a.list[0], Reason: a.named["reason"]}
		if len(a.list) > 1 {
			e.Want = a.list[1]
		}
		return one(e)
	case "forgetnode":
		return one(ForgetNode{Node: a.list[0], By: "ann"})
	case "freeze":
		e := Freeze{Reason: strings.Join(a.list, " "), By: "ann"}
		e.For, _ = time.ParseDuration(a.named["for"])
		return one(e)
	case "thaw":
		return one(Thaw{By: "ann"})
	case "inverse":
		d, err := time.ParseDuration(a.list[1])
		s.offers++
		s.alias["inverse "+a.list[0]] = fmt.Sprintf("i%d", s.offers)
		return []Event{InverseOffers{Offers: []*state.InverseOffer{{ID: s.alias["inverse "+a.list[0]], Agent: state.AgentID(a.list[0]), Window: state.Window{Start: s.now.Add(d)}}}}}, err
	case "rescindinverse":
		return one(InverseRescinded{ID: s.alias["inverse "+a.list[0]]})
	case "removevolume":
		v := s.byName(a.list[0])
		if v == nil {
			return one(RemoveVolume{Volume: "none"})
		}
		return one(RemoveVolume{Volume: v.UID})
	case "canceldeployment":
		app := s.s.Apps[state.AppID(a.list[0])]
		return one(CancelDeployment{Deployment: app.Deployment, Force: a.has("force")})
	case "granted", "refused":
		return s.grantResults(cmd == "granted", a)
	case "operate", "answered", "operationgone", "progressed", "canceloperation":
		e, err := s.operationEvents(cmd, a)
		return []Event{e}, err
	case "created", "uncreated", "gone", "removed":
		return s.requestResults(cmd, a)
	case "teardown":
		return one(Teardown{By: "ann", Force: a.has("force")})
	case "startover":
		return one(StartOver{By: "ann"})
	case "callfailed":
		if a.list[0] == "teardown" {
			return one(CallFailed{Call: EndFramework{}, Error: "timeout", Unknown: true})
		}
		for _, c := range []Call{Revive{}, Suppress{}} {
			if strings.EqualFold(fmt.Sprintf("%T", c), "scheduler."+a.list[0]) {
				return one(CallFailed{Call: c, Error: "timeout", Unknown: true})
			}
		}
		return one(CallFailed{Call: Decline{Offers: a.list[1:]}, Error: "timeout", Unknown: true})
	case "acceptfailed":
		return s.acceptFailed(a)
	}
	return nil, fmt.Errorf("no such command")
}

func (s *scenario) byName(name string) *state.Volume {
	return s.s.VolumeByRef(volume.Ref{Driver: "pool", Name: name})
}

func (s *scenario) nodesSeen(a args) Event {
	var e NodesSeen
	for _, word := range a.list {
		name, flag, _ := strings.Cut(word, ":")
		n := &state.Node{UID: state.NodeUID("node-" + name), Generation: 1, Alive: true, Hostname: name, Agent: state.AgentID(name), AgentHostname: name, Grade: "soft",
			Drivers: map[string]state.Driver{"pool": {Name: "pool", Scope: "cluster", Exclusive: true, Ready: true, AttachLimit: int(a.num("limit", 0))}}}
		switch flag {
		case "dead":
			n.Alive, n.DeadAt = false, s.now
		case "draining":
			n.Draining = true
		case "suspect":
			n.SuspectSince, n.FreeBy = s.now, s.now.Add(4*time.Second)
		case "nodriver":
			n.Drivers = nil
		case "again":
			n.Generation++
		}
		s.nodes[name] = n
		e.Nodes = append(e.Nodes, n)
	}
	return e
}

var claimShape = regexp.MustCompile(`^(free|granted|held)\((\d+)\)(?:@(\w+))?(!)?$`)

func (s *scenario) claimsSeen(a args) ([]Event, error) {
	e := ClaimsSeen{All: a.has("all")}
	names := make([]string, 0, len(a.named))
	for name := range a.named {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		m := claimShape.FindStringSubmatch(a.named[name])
		v := s.byName(name)
		if m == nil || v == nil {
			return nil, fmt.Errorf("claim %s=%s", name, a.named[name])
		}
		n, _ := strconv.ParseUint(m[2], 10, 64)
		c := &state.Claim{Volume: v.UID, Ref: v.Ref, State: m[1], Epoch: volume.Epoch(n), Since: s.now, Policy: "lease", MinGrade: "soft", Fence: "soft", Revoke: m[4] != ""}
		if m[3] != "" {
			c.Node, c.Agent, c.NodeGeneration = state.NodeUID("node-"+m[3]), state.AgentID(m[3]), 1
		}
		if i := s.s.Instances[v.Instance]; i != nil && i.Run != nil && c.State != state.ClaimFree {
			for _, g := range i.Run.Claims {
				if g.Volume == v.UID && g.Epoch == c.Epoch {
					c.Nonce = g.Nonce
				}
			}
		}
		e.Claims = append(e.Claims, c)
	}
	return []Event{e}, nil
}

func (s *scenario) offer(a args) Event {
	var e Offers
	for _, name := range a.list {
		s.offers++
		role := a.named["role"]
		if role == "" {
			role = "holdfast"
		}
		o := &state.Offer{ID: fmt.Sprintf("o%d", s.offers), Agent: state.AgentID(name), Hostname: name, AgentURL: "http://" + name + ":5051", Role: role, Zone: a.named["zone"], Region: a.named["region"], Attributes: map[string]string{}}
		if d, err := time.ParseDuration(a.named["window"]); err == nil && name == a.list[len(a.list)-1] {
			o.Unavailable = &state.Window{Start: s.now.Add(d), Duration: time.Hour}
		}
		if k, v, ok := strings.Cut(a.named["attr"], ":"); ok {
			o.Attributes[k] = v
		}
		if b := s.books[o.Agent]; b != nil {
			o.Resources = b.free.list()
			e.Offers = append(e.Offers, o)
			continue
		}
		var stack []state.Reservation
		if r := a.named["reserved"]; r != "" {
			stack = []state.Reservation{{Role: r}}
		}
		for _, r := range []struct {
			name string
			n    float64
		}{{"cpus", a.num("cpus", 4)}, {"mem", a.num("mem", 1024)}, {"disk", a.num("disk", 1000)}} {
			o.Resources = append(o.Resources, state.Resource{Name: r.name, Scalar: r.n, AllocationRole: role, Reservations: stack})
		}
		ports := a.named["ports"]
		if ports == "" {
			ports = "31000-31099"
		}
		from, to, _ := strings.Cut(ports, "-")
		begin, _ := strconv.ParseUint(from, 10, 64)
		end, _ := strconv.ParseUint(to, 10, 64)
		o.Resources = append(o.Resources, state.Resource{Name: "ports", Ranges: []state.Range{{Begin: begin, End: end}}, AllocationRole: role, Reservations: stack})
		e.Offers = append(e.Offers, o)
	}
	return e
}

func (s *scenario) status(a args) ([]Event, error) {
	e := Status{State: a.list[1], Source: "SOURCE_EXECUTOR", At: s.now, UUID: []byte("u" + strconv.FormatUint(s.steps, 10)), Message: a.named["message"], Reason: a.named["reason"]}
	if t := a.named["task"]; t != "" {
		e.Task, e.Agent = state.TaskID(t), state.AgentID(a.named["agent"])
		for id, st := range s.s.Strange { // without its random end
			if strings.HasPrefix(string(id), t+"-") {
				e.Task, e.Agent = id, st.Agent
			}
		}
	} else if i := s.s.Instances[state.InstanceID(a.list[0])]; a.has("away") && i != nil && len(i.Away) > 0 {
		e.Task, e.Agent = i.Away[0].Task, i.Away[0].Agent
	} else {
		if i == nil || i.Run == nil {
			return nil, fmt.Errorf("instance %s has no run", a.list[0])
		}
		e.Task, e.Agent = i.Run.Task, i.Run.Agent
	}
	if meaningOf(e.State) == over {
		s.released(e.Agent, e.Task)
	}
	if a.has("answer") {
		e.UUID = nil // a reconciliation's answer is not to be acknowledged
	}
	if h, ok := a.named["healthy"]; ok {
		b := h == "true"
		e.Healthy = &b
	}
	return []Event{e}, nil
}

func (s *scenario) app(a args) Event {
	id := state.AppID(a.list[0])
	spec := state.Spec{Cmd: "run", CPUs: a.num("cpus", 1), MemMB: a.num("mem", 128), DiskMB: a.num("disk", 0),
		Backoff: state.Backoff{Base: time.Second, Factor: 2, Max: 10 * time.Second}, Upgrade: state.Upgrade{MinHealth: a.num("minhealth", 0.5), MaxOver: a.num("over", 0)}}
	if cmd := a.named["cmd"]; cmd != "" {
		spec.Cmd = cmd
	}
	spec.Primary = a.has("primary")
	if d := a.named["drain"]; d != "" {
		drain, err := time.ParseDuration(d)
		if err != nil {
			panic(err)
		}
		spec.Drain = &drain
	}
	for n := range int(a.num("ports", 0)) {
		spec.Ports = append(spec.Ports, state.Port{Want: 10000 + n, Protocol: "tcp"})
	}
	if p := a.named["port"]; p != "" {
		spec.Ports, spec.RequirePort = []state.Port{{Want: int(a.num("port", 0)), Protocol: "tcp"}}, true
	}
	if v := a.named["volume"]; v != "" {
		spec.Volumes = []state.Mount{{Kind: state.MountExternal, ContainerPath: "data", Driver: "pool", Pattern: v, Shared: a.has("shared"), Size: volume.GiB,
			DeleteOnScaleDown: a.has("shrinks"), DeleteOnRemove: a.has("disposable"), Class: a.named["class"]}}
		if z := a.named["zones"]; z != "" {
			spec.Volumes[0].Zones = strings.Split(z, ",")
		}
		if from, snapshot, ok := strings.Cut(a.named["from"], "@"); ok {
			spec.Volumes[0].From = &state.MountSource{Volume: from, Snapshot: snapshot}
		}
	}
	if c := a.named["constraint"]; c != "" {
		parts := append(strings.SplitN(c, ":", 3), "", "")
		spec.Constraints = []state.Constraint{{Field: parts[0], Operator: parts[1], Value: parts[2], HasValue: parts[2] != ""}}
	}
	spec.Rollout = state.Rollout{Serial: a.has("serial"), Partition: int(a.num("partition", 0)), Min: int(a.num("mininst", 0)), Max: int(a.num("maxinst", 0))}
	if a.has("probed") {
		spec.HealthChecks = append(spec.HealthChecks, state.HealthCheck{Protocol: "HTTP"})
	}
	if a.has("readiness") {
		spec.ReadinessChecks = []state.ReadinessCheck{{Name: "ready"}}
	}
	if a.has("checked") {
		spec.HealthChecks = append(spec.HealthChecks, state.HealthCheck{Protocol: "COMMAND", Command: "true"})
	}
	if v := a.named["local"]; v != "" {
		mb, _ := strconv.ParseInt(v, 10, 64)
		m := state.Mount{Kind: state.MountPersistent, ContainerPath: "data", SizeMB: mb, DiskType: "root"}
		if t := a.named["type"]; t != "" {
			m.DiskType = t
		}
		m.Profile = a.named["profile"]
		spec.Volumes = append(spec.Volumes, m)
		spec.Residency, spec.Unreachable.Disabled = &state.Residency{}, true
	}
	if d, err := time.ParseDuration(a.named["relaunch"]); err == nil {
		spec.Residency = &state.Residency{Relaunch: true, Escalation: d}
	}
	if a.has("resident") {
		spec.Residency = &state.Residency{}
	}
	if r := a.named["accepts"]; r != "" {
		spec.AcceptedRoles = strings.Split(r, ",")
	}
	if d, err := time.ParseDuration(a.named["inactive"]); err == nil {
		spec.Unreachable.Inactive = d
	}
	if d, err := time.ParseDuration(a.named["expunge"]); err == nil {
		spec.Unreachable.Expunge = d
	}
	spec.Role = a.named["inrole"]
	spec.Unreachable.Disabled, spec.KillSelection = a.has("never"), a.named["kill"]
	def := &state.Def{App: id, Version: s.now.Format(versionFormat), Spec: spec}
	return PutApp{Changes: []AppPut{{Def: def, Instances: int(a.num("n", 1))}}, Force: a.has("force"), Create: a.has("create")}
}

func (s *scenario) probe(a args) Event {
	e := Health{Task: s.s.Instances[state.InstanceID(a.list[0])].Run.Task, Ready: a.has("ready"), Kill: a.named["kill"]}
	if h, ok := a.named["healthy"]; ok {
		healthy := h == "true"
		e.Healthy = &healthy
	}
	return e
}

func (s *scenario) grantResults(ok bool, a args) ([]Event, error) {
	var events []Event
	rest := s.grants[:0:0]
	for _, g := range s.grants {
		if len(a.list) > 0 && !a.has(g.Ref.Name) {
			rest = append(rest, g)
			continue
		}
		r := GrantResult{Volume: g.Volume, Epoch: g.Epoch, Nonce: g.Nonce, OK: ok}
		if !ok {
			r.Reason = "the claim is held"
		}
		events = append(events, r)
	}
	s.grants = rest
	if len(events) == 0 {
		return nil, fmt.Errorf("no grant was asked for")
	}
	return events, nil
}

func (s *scenario) requestResults(cmd string, a args) ([]Event, error) {
	var events []Event
	var rest []Call
	for _, c := range s.requests {
		r := RequestResult{OK: true, Scope: "cluster"}
		var name string
		switch c := c.(type) {
		case CreateVolume:
			r.Op, r.Volume, r.Node, r.Outcome, name = c.Op, c.Volume.UID, c.Node, "created", c.Volume.Ref.Name
		case RemoveVolumeData:
			r.Op, r.Volume, r.Node, r.Outcome, name = c.Op, c.Volume.UID, c.Node, "removed", c.Volume.Ref.Name
		}
		if len(a.list) > 0 && !a.has(name) {
			rest = append(rest, c)
			continue
		}
		if sc := a.named["scope"]; sc != "" {
			r.Scope = sc
		}
		switch cmd {
		case "uncreated":
			r.OK, r.Class, r.Error = false, a.named["class"], "the driver says no"
		case "gone":
			r.OK, r.Gone = false, true
		}
		events = append(events, r)
	}
	s.requests = rest
	if len(events) == 0 {
		return nil, fmt.Errorf("no request is under way")
	}
	return events, nil
}

func (s *scenario) acceptFailed(a args) ([]Event, error) {
	i := s.s.Instances[state.InstanceID(a.list[0])]
	if i == nil || i.Run == nil {
		return nil, fmt.Errorf("instance %s has no run", a.list[0])
	}
	return []Event{CallFailed{Call: Accept{Agent: i.Run.Agent, Launches: []Launch{{Instance: i, Run: i.Run}}}, Error: "connection refused", Unknown: a.has("unknown")}}, nil
}

func (s *scenario) show(what []string) string {
	var out strings.Builder
	for _, w := range what {
		switch w {
		case "instances":
			for _, id := range sortedKeys(s.s.Instances) {
				out.WriteString(s.instance(s.s.Instances[id]) + "\n")
			}
		case "volumes":
			for _, uid := range sortedKeys(s.s.Volumes) {
				out.WriteString(s.volume(s.s.Volumes[uid]) + "\n")
			}
		case "why":
			for _, id := range sortedKeys(s.s.Why) {
				out.WriteString(why(s.s.WhyOf(id)) + "\n")
			}
		case "reservations":
			for _, id := range sortedKeys(s.s.Reserved) {
				out.WriteString(s.reserved(s.s.Reserved[id]) + "\n")
			}
			for _, id := range sortedKeys(s.s.Leftovers) {
				fmt.Fprintf(&out, "leftover %s: %v\n", id, s.s.Leftovers[id].Volumes)
			}
			out.WriteString(s.bookkeeping())
		case "progress":
			for _, id := range sortedKeys(s.s.Apps) {
				fmt.Fprintf(&out, "%s: %s\n", id, Progress(s.s, id))
			}
		case "offers":
			for _, id := range sortedKeys(s.s.Offers) {
				fmt.Fprintf(&out, "%s held for %q\n", id, s.s.Offers[id].HeldFor)
			}
		case "nodes":
			for _, id := range sortedKeys(s.s.Orders) {
				o := s.s.Orders[id]
				fmt.Fprintf(&out, "%s is %s since %s: %s\n", o.Hostname, o.State(), s.at(o.Since), o.Reason)
			}
			for _, id := range sortedKeys(s.s.Leaving) {
				l := s.s.Leaving[id]
				fmt.Fprintf(&out, "%s leaves since %s: %s\n", id, s.at(l.Since), l.Why)
				for _, i := range l.Waits {
					fmt.Fprintf(&out, "  %s: %s\n", i.Instance, i.Text)
				}
			}
		case "deployments":
			for _, id := range sortedKeys(s.s.Deployments) {
				out.WriteString(s.write(state.Write{Kind: state.KindDeployment, Value: s.s.Deployments[id]}) + "\n")
			}
		}
	}
	return s.tidy(out.String())
}
