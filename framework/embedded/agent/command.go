package agent

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	mesos "github.com/mesos/mesos-go/api/v1/lib"

	"github.com/holdfast-io/holdfast/framework/embedded/process"
)

// defaultPath is what a task finds programs on when it does not say.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// command turns a CommandInfo into a process: its program, arguments, environment, directory. User and mounts are added by the caller.
func (a *Agent) command(cmd *mesos.CommandInfo, framework, agentID, container string, task mesos.TaskInfo, sandbox string) (process.Spec, error) {
	a.mu.Lock()
	f := a.frameworks[framework]
	a.mu.Unlock()
	env, path, err := a.taskEnv(cmd, f, agentID, container, task, sandbox)
	if err != nil {
		return process.Spec{}, err
	}
	spec := process.Spec{Env: env, Dir: sandbox, Marker: sandbox}
	if task.Command != nil && task.Command != cmd { // a check runs as its task does
		if spec.User, err = a.user(task.Command, f); err != nil {
			return process.Spec{}, err
		}
	}
	value := cmd.GetValue()
	for _, s := range append([]string{value}, cmd.Arguments...) {
		if strings.ContainsRune(s, 0) {
			return process.Spec{}, errors.New("command holds a NUL")
		}
	}
	if cmd.Shell == nil || *cmd.Shell {
		if cmd.Value == nil {
			//lint:ignore ST1005 Mesos's own text
			return process.Spec{}, errors.New("Shell specified but no command value provided")
		}
		spec.Path, spec.Args = "/bin/sh", []string{"sh", "-c", value}
		return spec, nil
	}
	if value == "" {
		return process.Spec{}, errors.New("command has no executable")
	}
	spec.Path, spec.Args = lookup(value, path, sandbox), cmd.Arguments
	if len(spec.Args) == 0 {
		spec.Args = []string{value}
	}
	return spec, nil
}

// lookup finds a program as execvp does, with the task's own PATH. What is not found keeps its name, and fails to start with it.
func lookup(name, path, dir string) string {
	if strings.Contains(name, "/") {
		return name
	}
	for _, d := range filepath.SplitList(path) {
		p := filepath.Join(d, name)
		if !filepath.IsAbs(p) {
			p = filepath.Join(dir, p)
		}
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p
		}
	}
	return name
}

// taskEnv is a task's environment: little of this program's own, the task's, and Mesos's variables last, which a task cannot override:
// MESOS_SANDBOX marks its processes.
func (a *Agent) taskEnv(cmd *mesos.CommandInfo, framework mesos.FrameworkInfo, agentID, container string, task mesos.TaskInfo, sandbox string) (env []string, path string, err error) {
	vars := map[string]string{"PATH": defaultPath, "HOME": home(userName(task.Command, framework), sandbox), "LANG": os.Getenv("LANG")}
	maps.Copy(vars, a.cfg.TaskEnv)
	for _, c := range []*mesos.CommandInfo{task.Command, cmd} {
		if c == nil || c.Environment == nil {
			continue
		}
		for _, v := range c.Environment.Variables {
			switch {
			case v.Type != nil && *v.Type == mesos.Environment_Variable_SECRET:
				return nil, "", fmt.Errorf("environment variable '%s' is a secret, which the embedded engine cannot resolve", v.Name)
			case v.Name == "" || strings.ContainsAny(v.Name, "=\x00") || strings.ContainsRune(v.GetValue(), 0):
				return nil, "", fmt.Errorf("environment variable %q cannot be set", v.Name)
			}
			vars[v.Name] = v.GetValue()
		}
	}
	for name, value := range map[string]string{
		process.MarkerName: sandbox, "MESOS_DIRECTORY": sandbox, "MESOS_TASK_ID": task.TaskID.Value, "MESOS_FRAMEWORK_ID": framework.ID.GetValue(),
		"MESOS_EXECUTOR_ID": executorOf(&task), "MESOS_AGENT_ID": agentID, "MESOS_SLAVE_ID": agentID,
		"MESOS_CONTAINER_NAME": "mesos-" + container, "MESOS_CONTAINER_ID": container, "MESOS_CHECKPOINT": "1",
		"MESOS_AGENT_ENDPOINT": strings.TrimPrefix(a.URL(), "http://"), "LIBPROCESS_IP": "127.0.0.1",
	} {
		vars[name] = value
	}
	for name, value := range vars {
		if value != "" || name != "LANG" {
			env = append(env, name+"="+value)
		}
	}
	return env, vars["PATH"], nil
}

func home(name, sandbox string) string {
	if name != "" {
		if u, err := user.Lookup(name); err == nil && u.HomeDir != "" {
			return u.HomeDir
		}
		return sandbox
	}
	if h := os.Getenv("HOME"); h != "" {
		return h
	}
	return sandbox
}

// userName is whom a task runs as: the command's user, else the framework's, else "", which is this program's own.
func userName(cmd *mesos.CommandInfo, framework mesos.FrameworkInfo) string {
	if name := cmd.GetUser(); name != "" {
		return name
	}
	return framework.User
}

// user finds out the identity that a task runs under, nil for this program's own. Only root can be somebody else.
func (a *Agent) user(cmd *mesos.CommandInfo, framework mesos.FrameworkInfo) (*syscall.Credential, error) {
	name := userName(cmd, framework)
	if name == "" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("user '%s' does not exist on this agent", name)
		}
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("user '%s': %w", name, err)
	}
	if int(uid) == os.Geteuid() {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("cannot run as user '%s': the agent is not root and can only run tasks as itself (uid %d)", name, os.Geteuid())
	}
	cred := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of user '%s': %w", name, err)
	}
	for _, g := range groups {
		if n, err := strconv.ParseUint(g, 10, 32); err == nil {
			cred.Groups = append(cred.Groups, uint32(n))
		}
	}
	return cred, nil
}

// withoutMarker is this program's own environment with additions, and without what would make a process look like a task's.
func withoutMarker(extra []string) []string {
	env := []string{"LIBPROCESS_IP=127.0.0.1", "LIBPROCESS_PORT=0"}
	for _, e := range append(os.Environ(), extra...) {
		if !isMarker(e) {
			env = append(env, e)
		}
	}
	return env
}
