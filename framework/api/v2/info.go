package v2

import (
	"net/http"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/fault"
)

// info has Marathon's shape; settings that this program does not have are null, as unset ones are there.
func (s *api) info(w http.ResponseWriter, r *http.Request) {
	in := s.Core.Info()
	config := map[string]any{"checkpoint": true, "failover_timeout": in.FailoverTimeoutSeconds, "framework_name": in.Name, "ha": false, "hostname": in.Hostname,
		"master": in.Master, "mesos_leader_ui_url": nil, "mesos_role": in.Role, "mesos_user": in.User, "webui_url": in.Webui, "features": []string{"external_volumes"},
		"local_port_min": 10000, "local_port_max": 20000, "default_network_name": nil, "env_vars_prefix": nil, "executor": "//cmd", "access_control_allow_origin": nil}
	if len(s.opt.Origins) > 0 {
		config["access_control_allow_origin"] = s.opt.Origins
	}
	if s.opt.DefaultNetwork != "" {
		config["default_network_name"] = s.opt.DefaultNetwork
	}
	for _, name := range []string{"decline_offer_duration", "launch_token", "launch_token_refresh_interval", "leader_proxy_connection_timeout_ms", "leader_proxy_read_timeout_ms",
		"max_instances_per_offer", "mesos_bridge_name", "mesos_heartbeat_failure_threshold", "mesos_heartbeat_interval", "new_group_enforce_role", "min_revive_offers_interval",
		"offer_matching_timeout", "on_elected_prepare_timeout", "reconciliation_initial_delay", "reconciliation_interval", "scale_apps_initial_delay", "scale_apps_interval",
		"store_cache", "task_launch_confirm_timeout", "task_launch_timeout", "task_lost_expunge_initial_delay", "task_lost_expunge_interval", "task_reservation_timeout", "maintenance_mode"} {
		config[name] = nil
	}
	zookeeper := map[string]any{"zk": nil, "zk_compression": nil, "zk_compression_threshold": nil, "zk_connection_timeout": nil, "zk_max_node_size": nil,
		"zk_max_versions": nil, "zk_session_timeout": nil, "zk_timeout": nil}
	port := any(nil)
	if _, p, ok := strings.Cut(hostPort(in.HTTPAddress), ":"); ok {
		port = portNumber(p)
	}
	s.JSON(w, r, http.StatusOK, map[string]any{"name": in.Name, "version": in.Version, "buildref": in.Version, "elected": in.Elected, "leader": in.Leader,
		"frameworkId": in.FrameworkID, "marathon_config": config, "zookeeper_config": zookeeper, "http_config": map[string]any{"http_port": port, "https_port": nil}})
}

// hostPort gives "x:port" of an address, whatever its host looks like.
func hostPort(address string) string {
	if i := strings.LastIndexByte(address, ':'); i >= 0 {
		return "x" + address[i:]
	}
	return ""
}

func portNumber(text string) any {
	n := 0
	for _, c := range text {
		if c < '0' || c > '9' || n > 65535 {
			return nil
		}
		n = n*10 + int(c-'0')
	}
	return n
}

func (s *api) leader(w http.ResponseWriter, r *http.Request) {
	in := s.Core.Info()
	if in.Leader == "" {
		s.Fail(w, r, fault.New(fault.NotFound, "There is no leader"))
		return
	}
	s.JSON(w, r, http.StatusOK, map[string]string{"leader": in.Leader})
}

// abdicationPause lets the answer leave before the leader does, as in Marathon.
const abdicationPause = 500 * time.Millisecond

// abdicate gives the leadership up: another process that waits takes over, or this one leads again.
func (s *api) abdicate(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch {
	case s.opt.Abdicate == nil:
		s.Fail(w, r, fault.New(fault.Conflict, "this leader cannot abdicate on request"))
		return
	case !s.Core.Info().Elected:
		s.Fail(w, r, fault.New(fault.NotFound, "There is no leader"))
		return
	case q.Get("backup") != "" || q.Get("restore") != "":
		s.Fail(w, r, fault.New(fault.Invalid, "backup and restore are not part of abdication here: use holdfast state export and holdfast state import"))
		return
	}
	time.AfterFunc(abdicationPause, s.opt.Abdicate)
	s.JSON(w, r, http.StatusOK, map[string]string{"message": "Leadership abdicated"})
}
