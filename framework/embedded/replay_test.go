package embedded

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The recordings were made with Mesos 1.12.0-dev, whose version number counts as equal to the engine's, and
// intervals ten times those used here at first; filters go by the recorded time. The test plays the recorded calls to
// the engine, waits for what was recorded to come back, and compares. Ids, uuids, times and process ids stand for each
// other once seen (see unifier). Events of one task, of offers, and the others are each compared in order. What differs
// and may is in known.

// known are the differences that stand, by file and place, with the reason. An entry that no longer differs fails the test.
var known = []struct{ file, place, reason string }{
	{"*", "event SUBSCRIBED: subscribed.master_info.capabilities", "mesos-go has no QUOTA_V2"},
	{"launch_with_docker_volume", "get /master/state: capabilities", "mesos-go has no QUOTA_V2"},
	{"launch_with_docker_volume", "get /master/state: flags.*", "the engine has few of Mesos's flags, and the test other values"},
	{"maintenance_and_health", "get /metrics/snapshot: *", "the engine counts a tenth of what Mesos counts, and other times went by"},
	{"launch_with_docker_volume", "get /master/state: build_*", "built otherwise"},
	{"launch_with_docker_volume", "get /master/state: git_*", "built from other sources"},
}

type line struct {
	Kind, Who, Text, Why, Path string
	T                          float64
	Status                     int
	Request, Event, Response   json.RawMessage
	Headers                    map[string]string
	Body                       string
}

func readRecording(t *testing.T, name string) []line {
	t.Helper()
	dir := os.Getenv("HOLDFAST_MESOS_WIRE")
	if dir == "" {
		dir = "../../../shared/mesos-wire"
	}
	f, err := os.Open(filepath.Join(dir, name+".jsonl"))
	if err != nil {
		t.Skipf("recording not there (set HOLDFAST_MESOS_WIRE to the folder): %v", err)
	}
	defer f.Close()
	var out []line
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 8<<20)
	for sc.Scan() {
		var l line
		if err := json.Unmarshal(sc.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		out = append(out, l)
	}
	return out
}

// callsFirst moves a call before the events that it caused and that were recorded before its answer, a few milliseconds at most.
func callsFirst(in []line) []line {
	out := slices.Clone(in)
	for i := range out {
		l := out[i]
		if l.Kind != "call" && l.Kind != "operator" || bytes.Contains(l.Request, []byte(`"ACKNOWLEDGE`)) ||
			bytes.Contains(l.Request, []byte(`"GET_`)) {
			continue
		}
		for j := i; j > 0 && out[j-1].Kind == "event" && l.T-out[j-1].T <= 0.02 && !usesOffer(l.Request, out[j-1].Event); j-- {
			out[j], out[j-1] = out[j-1], l
		}
	}
	return out
}

var offerID = regexp.MustCompile(`-O\d+"`)

func usesOffer(request, event []byte) bool {
	for _, id := range offerID.FindAll(event, -1) {
		if bytes.Contains(request, id) {
			return true
		}
	}
	return false
}

// player plays one recording.
type player struct {
	t      *testing.T
	file   string
	m      *Master
	agents []*fakeAgent
	u      *unifier
	subs   map[string]*sub
	note   string
	soon   bool              // a killed agent is restarted at once
	time   atomic.Int64      // of the line being played, in nanoseconds
	diffs  map[string]string // place -> first difference
	stop   func()
	cfg    Config
}

// sub is one subscription, read by a goroutine.
type sub struct {
	streamID string
	cancel   func()
	mu       sync.Mutex
	events   []map[string]any
	arrived  *sync.Cond
	end      string // empty while it is open
	started  bool   // the first heartbeat was awaited
	wantEnd  string // how the recorded stream ended
}

func TestReplay(t *testing.T) {
	for _, c := range []struct {
		file   string
		agents int
		secret string // of the principal "recorder"
	}{{"launch_with_docker_volume", 1, ""}, {"errors", 1, ""}, {"agent_loss", 2, ""}, {"reserve_create_launch", 1, ""},
		{"framework_failover", 1, ""}, {"maintenance_and_health", 1, ""}, {"auth", 0, "right"}} {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			lines := callsFirst(readRecording(t, c.file))
			// A sign of life that is late because this machine is busy looks like a difference; slower, it does not.
			for speed := 10; ; speed /= 2 {
				diffs := replay(t, c.file, c.agents, c.secret, speed, lines)
				if len(diffs) == 0 {
					return
				}
				if speed < 3 {
					t.Error(strings.Join(diffs, "\n"))
					return
				}
				t.Logf("at speed %d, trying slower:\n%s", speed, strings.Join(diffs, "\n"))
			}
		})
	}
}

// replay plays one recording speed times faster than it was made and returns what differs.
func replay(t *testing.T, file string, agents int, secret string, speed int, lines []line) []string {
	timing := quick()
	for _, d := range []*time.Duration{&timing.Allocation, &timing.Heartbeat, &timing.AgentLost} {
		*d = *d * 10 / time.Duration(speed)
	}
	p := &player{t: t, file: file, subs: map[string]*sub{}, diffs: map[string]string{}, cfg: Config{Dir: t.TempDir(), Timing: timing}}
	if secret != "" {
		p.cfg.Credentials = map[string]string{"recorder": secret}
	}
	p.run()
	p.u = newUnifier(p.m.ID())
	for i := range agents {
		p.agents = append(p.agents, newFakeAgent(t, p.m, i).start(50*time.Millisecond))
	}
	for i := range lines {
		p.play(&lines[i])
	}
	for _, a := range p.agents {
		a.kill()
	}
	return p.finish()
}

// run starts the master with filters that go by the recording's time.
func (p *player) run() {
	p.m, p.stop = runMaster(p.t, p.cfg)
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	p.m.clock = func() time.Time { return time.Unix(0, p.time.Load()) }
}

func (p *player) differ(place, format string, args ...any) {
	if _, seen := p.diffs[place]; !seen {
		p.diffs[place] = fmt.Sprintf(format, args...)
	}
}

// finish returns the differences that are not known.
func (p *player) finish() (out []string) {
	for who, s := range p.subs {
		if s.wantEnd != "" {
			if got := s.waitEnd(3 * time.Second); got != s.wantEnd {
				p.differ("end of stream "+who, "%q, recorded %q", got, s.wantEnd)
			}
		}
		s.mu.Lock()
		for _, e := range s.events {
			if e["type"] != "HEARTBEAT" {
				b, _ := json.Marshal(e)
				p.differ(fmt.Sprintf("extra event %v", e["type"]), "%s got one that was not recorded: %.300s", who, b)
			}
		}
		s.mu.Unlock()
	}
	for _, k := range known {
		if k.file != p.file && k.file != "*" {
			continue
		}
		differs := false
		for place := range p.diffs {
			prefix, wild := strings.CutSuffix(k.place, "*")
			if place == k.place || wild && strings.HasPrefix(place, prefix) {
				differs = true
				delete(p.diffs, place)
			}
		}
		if !differs {
			out = append(out, fmt.Sprintf("%q does not differ any more: take it off the list", k.place))
		}
	}
	for place, d := range p.diffs {
		out = append(out, place+": "+d)
	}
	p.stop()
	return out
}

func (p *player) play(l *line) {
	p.time.Store(int64(l.T * 1e9))
	switch l.Kind {
	case "note":
		p.note = l.Text
		p.act(l.Text)
	case "subscribe":
		p.subscribe(l)
	case "subscribe-error":
		if got := p.subs[l.Who].end; got != l.Body {
			p.differ("subscribe "+l.Who+": body", "%q, recorded %q", got, l.Body)
		}
	case "event":
		p.event(l)
	case "call":
		p.call(l)
	case "operator":
		p.operator(l)
	case "get":
		p.get(l)
	case "stream-closed":
		p.closed(l)
	default:
		p.t.Fatalf("line of kind %q", l.Kind)
	}
}

// act does what the recorder did outside of the API.
func (p *player) act(text string) {
	switch {
	case text == "signal SIGKILL sent to agent0":
		p.agents[0].settle() // the recorder was ten times slower: the last acknowledgement had arrived
		p.agents[0].kill()
		p.agents[0].link.Hangup()
		if p.soon {
			time.Sleep(50 * time.Millisecond)
			p.agents[0] = p.agents[0].restart(50 * time.Millisecond)
		}
	case text == "agent killed and restarted before the master gives it up":
		p.soon = true
	case text == "the agent comes back and recovers":
		p.agents[0] = p.agents[0].restart(50 * time.Millisecond)
	case strings.HasPrefix(text, "the stream is cut"):
		p.agents[0].fail("f1")
	case text == "signal SIGKILL sent to master":
		p.stop()
		p.cfg.Listen = p.m.Addr()
		p.run()
		for i, a := range p.agents {
			a.kill()
			n := a.successor(p.m.Link(a.link.key))
			if err := n.reregister(); err != nil {
				p.t.Fatal(err)
			}
			go n.live(50 * time.Millisecond)
			p.agents[i] = n
		}
	}
}

func (p *player) body(raw json.RawMessage) []byte {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		p.t.Fatal(err)
	}
	if m, ok := v.(map[string]any); ok && m["raw"] != nil {
		return []byte(m["raw"].(string))
	}
	v = p.u.toLive(v)
	b, err := json.Marshal(v)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

func (p *player) post(path string, body []byte, header map[string]string) *http.Response {
	req, err := http.NewRequest("POST", p.m.URL()+path, bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	// A connection that is kept from before the master's restart would end in an EOF, which no client repeats for a POST.
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp
}

func (p *player) subscribe(l *line) {
	body := p.body(l.Request)
	if l.Body == "" && bytes.Contains(l.Request, []byte(`"framework_info": {}`)) {
		body = []byte(`{"type":"SUBSCRIBE","subscribe":{"framework_info":{}}}`)
	}
	header := map[string]string{"Content-Type": "application/json", "Accept": "application/json"}
	switch { // the recording says who, not how
	case p.file != "auth" || l.Who == "none":
	case l.Who == "wrong":
		header["Authorization"] = "Basic " + base64.StdEncoding.EncodeToString([]byte("recorder:wrong"))
	default:
		header["Authorization"] = "Basic " + base64.StdEncoding.EncodeToString([]byte("recorder:right"))
	}
	resp := p.post("/api/v1/scheduler", body, header)
	p.status("subscribe "+l.Who, l, resp)
	if resp.StatusCode != 200 {
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		p.subs[l.Who] = &sub{end: string(text)}
		if want := l.Headers["Content-Length"]; want != strconv.Itoa(len(text)) {
			p.differ("subscribe "+l.Who+": body", "%d bytes %q, recorded %s", len(text), text, want)
		}
		return
	}
	s := &sub{streamID: resp.Header.Get("Mesos-Stream-Id"), cancel: func() { resp.Body.Close() }}
	s.arrived = sync.NewCond(&s.mu)
	p.subs[l.Who] = s
	p.t.Cleanup(s.cancel)
	go s.read(resp.Body)
}

// read takes RecordIO frames apart.
func (s *sub) read(r io.Reader) {
	br := bufio.NewReader(r)
	for {
		head, err := br.ReadString('\n')
		var n int
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(head))
		}
		frame := make([]byte, n)
		if err == nil {
			_, err = io.ReadFull(br, frame)
		}
		var e map[string]any
		if err == nil {
			err = json.Unmarshal(frame, &e)
		}
		s.mu.Lock()
		if err != nil {
			s.end = "IncompleteRead"
			if err == io.EOF && head == "" {
				s.end = "EOFError"
			}
			s.arrived.Broadcast()
			s.mu.Unlock()
			return
		}
		s.events = append(s.events, e)
		s.arrived.Broadcast()
		s.mu.Unlock()
	}
}

func (p *player) status(place string, l *line, resp *http.Response) {
	if resp.StatusCode != l.Status {
		p.differ(place+": status", "%d, recorded %d (%s)", resp.StatusCode, l.Status, p.note)
	}
	for _, h := range []string{"Content-Type", "WWW-Authenticate"} {
		if got, want := resp.Header.Get(h), l.Headers[h]; got != want {
			p.differ(place+": header "+h, "%q, recorded %q", got, want)
		}
	}
	if (resp.Header.Get("Mesos-Stream-Id") != "") != (l.Headers["Mesos-Stream-Id"] != "") {
		p.differ(place+": header Mesos-Stream-Id", "%q, recorded %q", resp.Header.Get("Mesos-Stream-Id"), l.Headers["Mesos-Stream-Id"])
	}
	if want := l.Headers["Content-Length"]; want == "0" && resp.ContentLength != 0 {
		p.differ(place+": header Content-Length", "%d, recorded 0", resp.ContentLength)
	}
}

func (p *player) call(l *line) {
	var req struct{ Type string }
	_ = json.Unmarshal(l.Request, &req)
	header := map[string]string{"Content-Type": "application/json", "Mesos-Stream-Id": p.subs[l.Who].streamID}
	// The bad requests differ in headers that were not recorded; the answers tell which.
	var text string
	_ = json.Unmarshal(l.Response, &text)
	switch {
	case strings.HasPrefix(text, "All non-subscribe"):
		delete(header, "Mesos-Stream-Id")
	case strings.Contains(text, "00000000-0000-0000-0000-000000000000"):
		header["Mesos-Stream-Id"] = "00000000-0000-0000-0000-000000000000"
	case l.Status == 415:
		header["Content-Type"] = "text/plain"
	case strings.Contains(text, "'Content-Type' to be present"):
		delete(header, "Content-Type")
	}
	place := "call " + req.Type
	resp := p.post("/api/v1/scheduler", p.body(l.Request), header)
	defer resp.Body.Close()
	p.status(place, l, resp)
	got, _ := io.ReadAll(resp.Body)
	want := text
	if uuidRE.ReplaceAllString(string(got), "<uuid>") != uuidRE.ReplaceAllString(p.u.live(want), "<uuid>") {
		p.differ(place+": body", "%q, recorded %q", got, want)
	}
}

func (p *player) event(l *line) {
	var want map[string]any
	if err := json.Unmarshal(l.Event, &want); err != nil {
		p.t.Fatal(err)
	}
	typ := want["type"].(string)
	if typ == "HEARTBEAT" && !p.subs[l.Who].fresh() {
		return // whenever it comes
	}
	got := p.subs[l.Who].next(kindOf(want), typ, 3*time.Second)
	if got == nil {
		p.differ("event "+typ, "did not come: %.400s (%s)", l.Event, p.note)
		return
	}
	for _, d := range p.u.match(want, got, "") {
		p.differ("event "+typ+": "+d.path, "%s (%s)", d.text, p.note)
	}
}

func (s *sub) fresh() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := !s.started
	s.started = true
	return was
}

// kindOf says which events are ordered among each other: those of a task's agent, those of offers, and the rest.
func kindOf(e map[string]any) string {
	switch e["type"] {
	case "OFFERS", "RESCIND", "INVERSE_OFFERS", "RESCIND_INVERSE_OFFER":
		return "offers"
	case "HEARTBEAT":
		return "heartbeat"
	case "UPDATE":
		s := e["update"].(map[string]any)["status"].(map[string]any)
		if s["uuid"] != nil {
			return fmt.Sprint("task ", s["task_id"])
		}
	}
	return "rest"
}

// next takes the first event of the same kind, which has to be of the type wanted.
func (s *sub) next(kind, typ string, wait time.Duration) map[string]any {
	deadline := time.Now().Add(wait)
	timer := time.AfterFunc(wait, func() { s.mu.Lock(); s.arrived.Broadcast(); s.mu.Unlock() })
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for i, e := range s.events {
			if kindOf(e) != kind {
				continue
			}
			if e["type"] != typ {
				return nil
			}
			s.events = slices.Delete(s.events, i, i+1)
			return e
		}
		if s.end != "" || time.Now().After(deadline) {
			return nil
		}
		s.arrived.Wait()
	}
}

func (s *sub) waitEnd(wait time.Duration) string {
	for deadline := time.Now().Add(wait); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		end := s.end
		s.mu.Unlock()
		if end != "" || time.Now().After(deadline) {
			return end
		}
	}
}

func (p *player) closed(l *line) {
	s := p.subs[l.Who]
	if l.Why == "IncompleteRead" && !strings.HasPrefix(p.note, "signal SIGKILL sent to master") {
		s.cancel() // the end of the recording
		return
	}
	s.wantEnd = l.Why // it may stand before the call that brings it about: looked at in the end
}

func (p *player) operator(l *line) {
	var req struct{ Type string }
	_ = json.Unmarshal(l.Request, &req)
	place := "operator " + req.Type
	resp := p.post("/api/v1", p.body(l.Request), map[string]string{"Content-Type": "application/json", "Accept": "application/json"})
	defer resp.Body.Close()
	p.status(place, l, resp)
	p.document(place, l, resp)
}

func (p *player) get(l *line) {
	noFollow := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := noFollow.Get(p.m.URL() + l.Path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	place := "get " + l.Path
	p.status(place, l, resp)
	p.document(place, l, resp)
}

func (p *player) document(place string, l *line, resp *http.Response) {
	b, _ := io.ReadAll(resp.Body)
	var got, want any
	if err := json.Unmarshal(l.Response, &want); err != nil {
		p.t.Fatal(err)
	}
	if text, ok := want.(string); ok {
		if p.u.live(text) != string(b) {
			p.differ(place+": body", "%q, recorded %q", b, text)
		}
		return
	}
	if err := json.Unmarshal(b, &got); err != nil {
		p.differ(place+": body", "%v in %.200q", err, b)
		return
	}
	for _, d := range p.u.match(want, got, "") {
		p.differ(place+": "+d.path, "%s", d.text)
	}
}

var uuidRE = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// unifier knows which recorded value stands for which live one.
type unifier struct {
	master string
	to     map[string]string // recorded -> live
}

func newUnifier(master string) *unifier { return &unifier{master: master, to: map[string]string{}} }

var (
	masterIDs = regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(-(?:[SO]\d+|\d{4}))\b`)
)

// live rewrites a recorded string.
func (u *unifier) live(s string) string {
	if v, ok := u.to[s]; ok {
		return v
	}
	return masterIDs.ReplaceAllStringFunc(s, func(x string) string {
		if v, ok := u.to[x]; ok {
			return v
		}
		return u.master + masterIDs.FindStringSubmatch(x)[1]
	})
}

// toLive rewrites a recorded request.
func (u *unifier) toLive(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			x[k] = u.toLive(e)
		}
	case []any:
		for i, e := range x {
			x[i] = u.toLive(e)
		}
	case string:
		return u.live(x)
	}
	return v
}

type diff struct{ path, text string }

// match compares a recorded document with a live one and notes what stands for what.
func (u *unifier) match(want, got any, path string) []diff {
	key := path[strings.LastIndexByte(path, '.')+1:]
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return []diff{{path, fmt.Sprintf("%v, recorded an object", got)}}
		}
		var out []diff
		for _, k := range union(w, g) {
			at := strings.TrimPrefix(path+"."+k, ".")
			wv, inW := w[k]
			gv, inG := g[k]
			switch {
			case !inG:
				out = append(out, diff{at, fmt.Sprintf("missing, recorded %s", short(wv))})
			case !inW:
				out = append(out, diff{at, fmt.Sprintf("%s, not recorded", short(gv))})
			default:
				out = append(out, u.match(wv, gv, at)...)
			}
		}
		return out
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return []diff{{path, fmt.Sprintf("%s, recorded %s", short(got), short(want))}}
		}
		w, g = arrange(w), arrange(g)
		var out []diff
		for i := range w {
			out = append(out, u.match(w[i], g[i], path)...)
		}
		return out
	case string:
		g, ok := got.(string)
		if !ok {
			return []diff{{path, fmt.Sprintf("%v, recorded %q", got, w)}}
		}
		return u.matchString(w, g, path, key)
	case float64:
		g, ok := got.(float64)
		if !ok || (g != w && !varies(key)) {
			return []diff{{path, fmt.Sprintf("%v, recorded %v", got, w)}}
		}
	default:
		if want != got {
			return []diff{{path, fmt.Sprintf("%v, recorded %v", got, want)}}
		}
	}
	return nil
}

func (u *unifier) matchString(w, g, path, key string) []diff {
	if u.live(w) == g {
		return nil
	}
	standsFor := key == "uuid" || key == "status_update_uuid" || key == "value" && (uuidRE.MatchString(w) || strings.HasSuffix(path, "uuid.value"))
	if old, seen := u.to[w]; standsFor && !seen {
		u.to[w] = g
		return nil
	} else if standsFor {
		return []diff{{path, fmt.Sprintf("%q, but %q stood for it before", g, old)}}
	}
	if uuidRE.ReplaceAllString(sortList(u.live(w)), "<uuid>") == uuidRE.ReplaceAllString(sortList(g), "<uuid>") {
		return nil
	}
	if volatile[key] || key == "version" && w == "1.12.0" && g == Version {
		return nil
	}
	return []diff{{path, fmt.Sprintf("%q, recorded %q", g, u.live(w))}}
}

// sortList makes the order of resources in a message not matter.
func sortList(s string) string {
	parts := strings.Split(s, "; ")
	sort.Strings(parts)
	return strings.Join(parts, "; ")
}

// varies are numbers that are never the same twice.
func varies(key string) bool {
	switch key {
	case "timestamp", "nanoseconds", "executor_pid", "registered_time", "start_time", "elected_time", "port", "ip", "heartbeat_interval_seconds":
		return true
	}
	return false
}

// volatile are strings that depend on the machine.
var volatile = map[string]bool{"pid": true, "leader": true}

func union(a, b map[string]any) []string {
	var keys []string
	for k := range a {
		keys = append(keys, k)
	}
	for k := range b {
		if _, both := a[k]; !both {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	return keys
}

// arrange sorts lists whose order means nothing: resources, offers, agents. Others keep theirs.
func arrange(l []any) []any {
	out := slices.Clone(l)
	rank := func(v any) string {
		m, ok := v.(map[string]any)
		if !ok {
			return ""
		}
		if m["hostname"] != nil {
			return fmt.Sprint(m["hostname"])
		}
		if m["scalar"] != nil || m["ranges"] != nil {
			b, _ := json.Marshal([]any{m["name"], m["reservations"], m["disk"]})
			return string(b)
		}
		return ""
	}
	sort.SliceStable(out, func(i, j int) bool { return rank(out[i]) < rank(out[j]) })
	return out
}

func short(v any) string {
	b, _ := json.Marshal(v)
	if len(b) > 300 {
		b = append(b[:300], "…"...)
	}
	return string(b)
}
