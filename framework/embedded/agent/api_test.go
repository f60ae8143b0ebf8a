package agent

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	mesos "github.com/mesos/mesos-go/api/v1/lib"
)

func get(t testing.TB, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

func post(t testing.TB, url, body string) (int, string) {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(data)
}

func TestEndpoint(t *testing.T) {
	m := newMaster(t)
	a := newAgent(t, m, nil)
	a.peer.Run(framework(), shell("t1", "ln -s /etc/passwd leak; mkfifo pipe; printf 'hello\\n'; sleep 1000"))
	a.peer.Run(framework(), shell("t2", "true"))
	m.awaitState("t1", mesos.TASK_RUNNING)
	m.awaitState("t2", mesos.TASK_FINISHED)
	for deadline := time.Now().Add(5 * time.Second); len(a.Tasks()) > 1 || len(readMaybe(a.latest("t1")+"/stdout")) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not settled")
		}
	}

	var agent struct {
		Type     string
		GetAgent struct {
			AgentInfo struct {
				ID         struct{ Value string }
				Hostname   string
				Attributes []struct{ Name string }
			} `json:"agent_info"`
		} `json:"get_agent"`
	}
	code, body := post(t, a.URL()+"/api/v1", `{"type":"GET_AGENT"}`)
	if err := json.Unmarshal([]byte(body), &agent); err != nil || code != 200 || agent.GetAgent.AgentInfo.ID.Value != a.ID() || agent.GetAgent.AgentInfo.Hostname != "agent0" {
		t.Errorf("GET_AGENT: %d %s", code, body)
	}

	var state struct {
		ID         string
		Frameworks []struct {
			Executors []struct {
				ID, Directory, Container string
				Tasks                    []struct{ ID, State string }
			}
			Completed []struct{ Directory string } `json:"completed_executors"`
		}
	}
	_, body = get(t, a.URL()+"/state")
	if err := json.Unmarshal([]byte(body), &state); err != nil {
		t.Fatal(err)
	}
	f := state.Frameworks[0]
	if len(f.Executors) != 1 || f.Executors[0].Tasks[0].State != "TASK_RUNNING" || len(f.Completed) != 1 || f.Completed[0].Directory == "" {
		t.Errorf("state: %s", body)
	}
	box := f.Executors[0].Directory
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/files/read?offset=0&length=100&path=" + url.QueryEscape(box+"/stdout"), 200, `{"data":"hello\n","offset":0}`},
		{"/files/read?offset=2&length=2&path=" + url.QueryEscape(box+"/stdout"), 200, `{"data":"ll","offset":2}`},
		{"/files/read?offset=99&path=" + url.QueryEscape(box+"/stdout"), 200, `{"data":"","offset":99}`},
		{"/files/read?offset=-1&path=" + url.QueryEscape(box+"/stdout"), 200, `{"data":"","offset":6}`},
		{"/files/read?offset=0&path=" + url.QueryEscape(box+"/leak"), 404, ""},
		{"/files/read?offset=0&path=" + url.QueryEscape(box+"/pipe"), 400, ""},
		{"/files/read?offset=0&path=" + url.QueryEscape(box+"/../../../../../../../../../../etc/passwd"), 404, ""},
		{"/files/read?offset=0&path=/etc/passwd", 404, ""},
		{"/files/read?offset=0&path=" + url.QueryEscape(a.Dir()+"/meta/agent.json"), 404, ""},
		{"/files/read?offset=x&path=" + url.QueryEscape(box+"/stdout"), 400, ""},
		{"/files/download?path=" + url.QueryEscape(box+"/../latest/stdout"), 200, "hello\n"},
		{"/health", 200, ""},
	} {
		code, body := get(t, a.URL()+c.path)
		if code != c.code || c.want != "" && body != c.want {
			t.Errorf("GET %s: %d %q, want %d %q", c.path, code, body, c.code, c.want)
		}
	}
	if code, body := get(t, a.URL()+"/files/browse?path="+url.QueryEscape(box)); code != 200 || !strings.Contains(body, `"mode":"-rw-r--r--"`) {
		t.Errorf("browse: %d %s", code, body)
	}
	for body, want := range map[string]int{`{"type":"GET_HEALTH"}`: 200, `{"type":"GET_STATE"}`: 200, `{"type":"LAUNCH_CONTAINER"}`: 501, `{}`: 400, `nonsense`: 400,
		`{"type":"READ_FILE","read_file":{"path":"` + box + `/stdout","offset":0}}`: 200, `{"type":"LIST_FILES","list_files":{"path":"` + box + `"}}`: 200} {
		if code, text := post(t, a.URL()+"/api/v1", body); code != want {
			t.Errorf("%s: %d %s, want %d", body, code, text, want)
		}
	}
	req, _ := http.NewRequest("GET", a.URL()+"/state", nil)
	req.Host = "evil.example"
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != 403 {
		t.Errorf("foreign host: %v %v", resp, err)
	}
}

func readMaybe(path string) []byte {
	data, _ := os.ReadFile(path)
	return data
}

func TestListensOnLoopbackOnly(t *testing.T) {
	_, err := New(Config{Dir: t.TempDir(), Master: newMaster(t), Listen: "0.0.0.0:0"})
	if err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("New: %v", err)
	}
}
