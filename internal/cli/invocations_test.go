package cli_test

import "strings"

// execInspects: docker looks at the container before it makes an exec; our one request less is an unknown container's
// 404 from the exec itself.
const execInspects = `^GET /containers/[^/]+/json$|^POST /containers/missing1/exec`

// typeNames are in the error for a field that is not there, and are each client's own.
const typeNames = `can't evaluate field`

// detached: docker asks for the exit of a container it does not wait for.
const detached = `/wait\?condition=`

func invocations() []invocation {
	list := []invocation{}
	add := func(args ...string) {
		for _, a := range args {
			list = append(list, invocation{args: a})
		}
	}
	// Grammar, help and refusals.
	// The groups that are not there yet are only missing from the lists.
	list = append(list,
		invocation{args: "", ignore: `^  (search|manifest|plugin|trust|volume|config|node|secret|service|stack|swarm|commit|checkpoint) |^Swarm Commands:|^$`},
		invocation{args: "container", ignore: `^  commit `})
	add("foo", "container foo", "container ls foo", "image", "image foo", "system", "ps --foo", "ps foo", "rm", "run", "exec web",
		"rename a", "tag a", "port", "port a b c", "logs", "kill", "--foo ps", "-H tcp://a -H tcp://b ps", "help ps", "help foo", "-c x -H tcp://a ps", "-l nonsense ps",
		"top", "wait", "attach", "attach a b", "inspect", "pull", "pull a b", "push", "history", "save", "rmi", "stop", "start", "version foo", "info foo", "network foo", "events foo")
	for _, c := range []string{
		"start", "stop", "restart", "kill", "rm", "ps", "logs", "exec", "attach", "wait", "inspect", "images", "rmi", "tag", "import",
		"history", "events", "version", "info", "top", "stats", "pause", "unpause", "rename", "port", "cp", "diff", "export", "update",
		"container ls", "container rm", "container prune", "container inspect", "container run", "image ls", "image rm", "image prune", "image inspect",
		"system df", "system prune", "system info", "system events", "network ls", "network inspect", "network rm", "network prune",
		"login", "logout", "context ls", "context use", "context create", "context inspect", "context rm", "context show", "context update",
		"run", "create",
	} {
		i := invocation{args: c + " --help"}
		switch c {
		case "run", "create", "container run", "update":
			// Docker 28 still shows --disable-content-trust and --kernel-memory, which 29 hides.
			i.ignore = `disable-content-trust|kernel-memory|^ +true\)$|"\|?missing"`
		}
		list = append(list, i)
	}

	// Lists and their formats.
	for _, c := range []string{"ps", "images", "network ls", "stats --no-stream", "stats --no-stream web", "history nginx", "system df"} {
		add(c, c+" --format json", c+" --format '{{json .}}'", c+" --format nonsense{{")
		list = append(list, invocation{args: c + " --format '{{.NoSuch}}'", ignore: typeNames}, invocation{args: c + " --format 'table {{.ID}}'", ignore: typeNames})
	}
	add("ps -a", "ps -q", "ps -aq", "ps --no-trunc", "ps -s", "ps -l", "ps -n 2", "ps -n 2 -l", "ps --size=false --format '{{.Size}}'", "ps --format '{{.Size}}'",
		"ps --format 'table {{.Names}}\\t{{.Labels}}\\t{{.Mounts}}\\t{{.Networks}}'", "ps --no-trunc --format '{{.Names}} {{.Mounts}}'", "ps -q --format '{{.Names}}'",
		"ps --format '{{.Label \"a\"}}|{{.LocalVolumes}}|{{.State}}|{{.CreatedAt}}'", "ps --format 'table {{.Label \"com.example.some-label\"}}'", "ps --format '{{.Names | upper}} {{title .State}} {{pad .State 2 3}}|{{truncate .State 3}}|{{join (split .Names \"e\") \"-\"}}'",
		"ps --filter status=exited --filter label=a=b --filter label=c -f name=x", "ps --filter nonsense", "ps --format raw", "ps --format raw -s", "ps --format raw -q", "ps --format table", "ps --format 'table {{lower .Names}}'",
		"container ls -a", "container ps", "container list -q", "ps --format '{{println .Names}}'", "ps --format '{{.ID}}\\n{{.Names}}'")
	add("images -q", "images --digests", "images --no-trunc", "images -a nginx", "images ls", "images --format '{{.Repository}}:{{.Tag}} {{.Size}} {{.CreatedAt}}'", "images --format 'table {{.Repository}}\\t{{.Digest}}'",
		"images --format '{{.Containers}} {{.SharedSize}} {{.UniqueSize}}'", "images -f dangling=true -f label=x", "images --format raw", "images --digests --format raw", "image ls", "image list -q --no-trunc", "images --digests --format 'table {{.Tag}}'", "images --digests --format json")
	add("network ls -q", "network ls --no-trunc", "network ls --format '{{.Name}} {{.IPv6}} {{.Internal}} {{.Labels}} {{.CreatedAt}}'", "network ls -f driver=bridge", "network list", "network inspect bridge", "network inspect bridge none1", "network inspect -f '{{.Driver}}' bridge", "network inspect -v bridge",
		"network prune -f", "network ls --format raw")
	// Docker asks for each network first whether it is the swarm's.
	list = append(list, invocation{args: "network rm a missing1 b", ignore: `^GET /networks/`}, invocation{args: "network rm -f missing1", ignore: `^GET /networks/`})
	add("history -q nginx", "history -H=false nginx", "history --no-trunc nginx", "history missing1")
	add("system df -v", "system df --format '{{.Type}}: {{.Size}} {{.Reclaimable}}'", "system df -v --format '{{json .}}'", "system df -v --format json", "system df --format raw")
	add("events --until 1600000002", "events --since 1 --until 2 --filter type=container --filter event=start", "events --format json --until 1", "events --format '{{.Type}} {{.Action}} {{.Actor.ID}}' --until 1", "events --format '{{.Nope}}'", "events --format '{{'")
	add("info -f '{{.Driver}}'", "info -f '{{'", "info -f '{{.ClientInfo.Context}}'", "system info -f '{{.ServerVersion}} {{.OSType}}'", "version -f '{{.Server.Version}}'", "version -f '{{.Server.APIVersion}} {{.Client.Context}}'", "version -f '{{'", "version -f '{{json .Server}}'")

	list = append(list, invocation{args: "info", ignore: `^ Version:`}, invocation{args: "info -f '{{.Nope}}'", ignore: typeNames}, invocation{args: "version -f '{{.Nope}}'", ignore: typeNames})

	// Inspect.
	add("inspect web", "inspect web db", "inspect nginx", "inspect bridge", "inspect web nothing", "inspect nothing", "inspect -f '{{.Id}} {{.Name}}' web", "inspect -f '{{.UnknownField.Deep}}' web", "inspect -f '{{.Nope}}' web", "inspect -f '{{' web", "inspect -f json web db",
		"inspect -f '{{json .Config.Env}}' web", "inspect --type container nginx", "inspect --type image nginx", "inspect --type nonsense x", "inspect --type= x", "inspect -s web", "inspect -s nginx", "inspect --type network bridge", "inspect -f '{{.ID}}' web nothing db",
		"inspect -f '{{range $p, $c := .NetworkSettings.Ports}}{{$p}} {{range $c}}{{.HostIp}}:{{.HostPort}} {{end}}{{end}}' web", "inspect -f '{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}' web", "inspect -f '{{.State.Running}} {{.State.Pid}}' web",
		"container inspect web", "container inspect nginx", "container inspect -s -f '{{.Name}}' web", "image inspect nginx", "image inspect nothing", "image inspect -f '{{.Size}}' nginx")

	// Verbs on containers.
	for _, c := range []string{"stop", "restart", "kill", "pause", "unpause", "rm", "start", "wait", "update -m 64m"} {
		add(c+" web", c+" web db", c+" missing1", c+" web missing1 db missing2", c+" busy", c+" unimplemented")
	}
	add("stop -t 3 web", "stop -t 0 web", "stop -s INT -t -1 web", "restart -t 3 -s HUP web", "stop --time 5 web", "stop --time 5 --timeout 6 web", "kill -s HUP web", "kill --signal=9 web", "rm -f missing1 web", "rm -fv web", "rm -l a/b", "rm /", "rm /web", "container rm web", "container remove -f web",
		"rename web new", "rename missing1 new", "port web", "port web 80", "port web 80/tcp", "port web 81", "port missing1", "top web", "top web -eo pid,cmd", "top missing1", "logs web", "logs tty", "logs missing1", "logs -f --tail 5 -t --since 2019-01-01 --until 2020-01-01 --details web", "logs -n 0 web",
		"diff web", "diff missing1", "export web", "export -o out.tar web", "export -o nodir/out.tar web", "export missing1", "wait", "update web", "update --cpus 1.5 --memory-swap -1 --pids-limit 5 --restart always --blkio-weight 100 web", "update --restart on-failure:x web", "update --cpus x web", "start missing1 web")
	list = append(list,
		invocation{args: "container prune -f"}, invocation{args: "container prune", stdin: "n\n"}, invocation{args: "container prune", stdin: "y\n"}, invocation{args: "container prune", stdin: ""},
		invocation{args: "container prune -f --filter until=1h --filter label=a"}, invocation{args: "image prune", stdin: "Y\n"}, invocation{args: "image prune -a", stdin: "no\n"}, invocation{args: "image prune -af --filter until=1h"},
		invocation{args: "system prune", stdin: "n\n"}, invocation{args: "system prune -f"}, invocation{args: "system prune -af --volumes"}, invocation{args: "system prune --filter label=x --filter until=3h", stdin: "n\n"},
		invocation{args: "container prune -f", cfg: `{"pruneFilters":["until=1h"]}`},
	)

	// Images.
	add("pull busybox", "pull -q busybox", "pull busybox:1.36", "pull -a busybox", "pull -a busybox:1", "pull denied", "pull broken", "pull Upper", "pull ''", "pull --platform linux/arm64 busybox", "pull busybox@sha256:1111111111111111111111111111111111111111111111111111111111111111", "pull registry.example.com:5000/a/b",
		"push busybox", "push -q busybox", "push -a busybox", "push -a busybox:1", "push r.example.com/a:1", "rmi one", "rmi one missing1", "rmi -f missing1", "rmi -f missing1 used", "rmi used", "rmi --no-prune one", "image rm one two", "image remove one", "tag one two", "tag missing1 two", "tag one Bad:Tag:x",
		"save one", "save one two", "save -o out.tar one", "save -o nodir/x one", "load -i nofile", "import nofile", "import http://example.com/x.tar new:1", "import - bad:Ref:x")
	list = append(list,
		invocation{args: "load", stdin: "a tar"}, invocation{args: "load -q -i in.tar", files: map[string]string{"in.tar": "tar"}}, invocation{args: "load -i in.tar", files: map[string]string{"in.tar": "tar"}},
		invocation{args: "import - new:1", stdin: "rootfs"}, invocation{args: "import -c 'ENV A=1' -c 'CMD x' -m msg in.tar new", files: map[string]string{"in.tar": "tar"}}, invocation{args: "import in.tar", files: map[string]string{"in.tar": "tar"}},
		invocation{args: "pull r.example.com/a", cfg: `{"auths":{"r.example.com":{"auth":"dTpw"}}}`}, invocation{args: "pull busybox", cfg: `{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}`}, invocation{args: "push r.example.com/a", cfg: `{"auths":{"r.example.com":{"auth":"dTpw"}}}`},
		invocation{args: "ps", cfg: `{"psFormat":"table {{.Names}}"}`}, invocation{args: "ps -q", cfg: `{"psFormat":"table {{.Names}}"}`}, invocation{args: "ps", cfg: `{"psFormat":"{{.Nope}}"}`, ignore: typeNames}, invocation{args: "images", cfg: `{"imagesFormat":"{{.ID}}"}`, unsorted: true}, invocation{args: "network ls", cfg: `{"networksFormat":"{{.Name}}"}`},
		invocation{args: "ps", cfg: `{"HttpHeaders":{"X-My":"1"}}`}, invocation{args: "ps", cfg: `{broken`}, invocation{args: "ps", cfg: `{"detachKeys":"ctrl-x"}`},
		invocation{args: "login -u u --password-stdin r.example.com", stdin: "secret\n"}, invocation{args: "login -u u -p wrong r.example.com"}, invocation{args: "login -u u -p x"}, invocation{args: "login --password-stdin r.example.com", stdin: "x"}, invocation{args: "login -p x --password-stdin r"}, invocation{args: "login r.example.com"},
		invocation{args: "login r.example.com", cfg: `{"auths":{"r.example.com":{"auth":"dTpw"}}}`}, invocation{args: "logout r.example.com", cfg: `{"auths":{"r.example.com":{"auth":"dTpw"},"other":{"auth":"dTpw"}}}`}, invocation{args: "logout"},
	)

	// Exec and attach.
	for _, c := range []string{"exec web true", "exec -i web cat", "exec web fail", "exec -d web true", "exec -e A=1 -e VISIBLE -e NOWHERE -u 1:2 -w /x --privileged web env", "exec -t web true", "exec -it web sh", "exec missing1 true", "exec -it missing1 true", "exec --env-file env web true", "exec --env-file nofile web true", "exec -e =x web true"} {
		list = append(list, invocation{args: c, stdin: "typed\n", ignore: execInspects, files: map[string]string{"env": "# comment\nA=1\n\n  B=two words \nVISIBLE\nNOWHERE\n"}})
	}
	add("attach --no-stdin web", "attach stopped", "attach missing1", "attach tty", "start -a web", "start -a auto", "start -ai web", "start -a web db", "start -a missing1")
	list = append(list, invocation{args: "attach web", stdin: "some input"}, invocation{args: "start -ai web", stdin: "some input"})

	// Context.
	add("context ls", "context show", "context inspect", "context use nothing", "context use default", "context rm default", "context rm nothing", "context create x y", "context create bad/name", "context create default", "context create new --docker host=tcp://h:1", "context create new --docker nonsense=1", "context create new --from default --docker host=tcp://h", "-c nothing ps", "context inspect nothing", "context ls -q", "context ls --format json", "context inspect -f '{{.Name}}'", "context update nothing")
	for _, c := range []string{"ps", "run nginx", "run -d nginx", "create nginx", "exec web true", "pull busybox", "stop web", "start web", "inspect web", "logs web", "rmi x", "attach web", "events", "network ls", "load", "wait web", "run --gpus all nginx", "stats", "system df", "cp x web:/"} {
		list = append(list, invocation{args: c, noDaemon: true})
	}
	list = append(list, invocation{args: "info", noDaemon: true, ignore: `^ Version:`}, invocation{args: "version -f '{{.Server}}'", noDaemon: true}, invocation{args: "start -a web", noDaemon: true},
		invocation{args: "run --rm -v /x nginx", env: []string{"DOCKER_HOST=tcp://127.0.0.1:1"}}, invocation{args: "ps", env: []string{"DOCKER_HOST=nonsense://x"}}, invocation{args: "ps", env: []string{"DOCKER_API_VERSION=1.45"}}, invocation{args: "ps", env: []string{"DOCKER_CONTEXT=nothing", "DOCKER_HOST="}},
		invocation{args: "ps", env: []string{"DOCKER_TLS_VERIFY=1", "DOCKER_HOST=tcp://127.0.0.1:1"}}, invocation{args: "--tls ps", env: []string{"DOCKER_HOST=tcp://127.0.0.1:1"}}, invocation{args: "--tlsverify --tlscacert /no/ca ps"})
	list = append(list, creations()...)
	for i := range list {
		switch args := list[i].args; {
		case strings.HasPrefix(args, "images"), strings.HasPrefix(args, "image ls"), strings.HasPrefix(args, "image list"):
			list[i].unsorted = true // docker goes through a map
		case strings.HasPrefix(args, "stats --no-stream") && !strings.HasSuffix(args, " web"):
			list[i].ignore += `|^GET /containers/[0-9a-f]+/stats` // by a shortened id
			list[i].ignore = strings.TrimPrefix(list[i].ignore, "|")
		case strings.HasPrefix(args, "run ") && strings.Contains(args, " -d "):
			list[i].ignore = detached
		}
	}
	return list
}
