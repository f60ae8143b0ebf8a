import sys, threading, time
from marathon import MarathonClient, MarathonApp, NotFoundError, MarathonHttpError
from marathon.models import MarathonGroup, MarathonHealthCheck
from marathon.models.events import EventFactory

c = MarathonClient(sys.argv[1], timeout=10)
seen = []
def listen():
    for e in c.event_stream(event_types=['status_update_event', 'app_terminated_event', 'api_post_event', 'group_change_success', 'event_stream_attached']):
        seen.append(e.event_type)
t = threading.Thread(target=listen, daemon=True)
t.start()

def until(what, f, limit=20):
    end = time.time() + limit
    while True:
        if f():
            return
        if time.time() > end:
            raise SystemExit('timeout: ' + what)
        time.sleep(0.05)

until('the stream', lambda: 'event_stream_attached' in seen)
assert b'pong' in c.ping()
assert c.get_info().framework_id, 'no framework id'
app = c.create_app('/py/web', MarathonApp(cmd='sleep 1000', mem=16, cpus=0.1, instances=1, labels={'a': 'b'}))
assert app.id == '/py/web' and app.deployments, app
idle = lambda: not c.list_deployments()
until('creation', lambda: c.get_app('/py/web').tasks_running == 1 and idle())
c.scale_app('/py/web', instances=3)
until('scaling', lambda: len(c.list_tasks('/py/web')) == 3 and idle())
assert [a.id for a in c.list_apps(label='a==b', embed_counts=True)] == ['/py/web']
assert len(c.list_tasks()) == 3
c.restart_app('/py/web')
until('restart', idle)
c.update_app('/py/web', MarathonApp(cmd='sleep 2000'))
until('update', idle)
versions = c.list_versions('/py/web')
assert len(versions) == 2, versions
assert {c.get_version('/py/web', v).cmd for v in versions} == {'sleep 1000', 'sleep 2000'}
killed = c.kill_given_tasks([c.list_tasks('/py/web')[0].id])
until('kill', lambda: c.get_app('/py/web').tasks_running == 3)
c.create_group(MarathonGroup(id='/team', apps=[MarathonApp(id='/team/a', cmd='sleep 1000', mem=16, cpus=0.1, instances=1)],
    groups=[MarathonGroup(id='/team/sub', apps=[MarathonApp(id='/team/sub/b', cmd='sleep 1000', mem=16, cpus=0.1, instances=1, dependencies=['/team/a'])])]))
until('the group', idle)
g = c.get_group('/team')
assert [a.id for a in g.apps] == ['/team/a'] and [a.id for a in g.groups[0].apps] == ['/team/sub/b'], g
c.scale_group('/team', 2)
until('scaling the group', lambda: idle() and c.get_app('/team/sub/b').tasks_running == 2)
c.delete_group('/team')
until('the end of the group', lambda: idle() and not [a for a in c.list_apps() if a.id.startswith('/team')])
assert len([x for x in c.list_groups() if x.id == '/team']) == 0
c.list_queue()
c.get_leader()
c.delete_app('/py/web', force=True)
def gone():
    try:
        c.get_app('/py/web')
        return False
    except NotFoundError:
        return True
until('deletion', lambda: gone() and idle())
try:
    c.create_app('/py/bad', MarathonApp(cmd='sleep 1', instances=-1))
    raise SystemExit('a bad app was taken')
except MarathonHttpError as e:
    assert e.status_code == 422, e
until('events', lambda: {'status_update_event', 'app_terminated_event', 'api_post_event', 'group_change_success'} <= set(seen))
print('python3-marathon: all right, %d events' % len(seen))
