package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/moby/moby/client"
)

const (
	idWeb  = "4c01db0b339c2f3b0e5a2cb5fcfa5d7eb1e5f9b4b2dd2df1d1f3eae2f3b8a9c1"
	idDB   = "8dfafdbc3a40f8d1b4d6c5f2d0a9bb1f7c3e5e1d2c4b6a8f0e2d4c6b8a0f1e3d"
	idNew  = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	imgOne = "sha256:7cfbbec8963d8f13e6c70416d6592e1cc10f47a348131290a55d43c3acab3fb9"
	imgTwo = "sha256:1d34ffeaf190be23d3de5a8de0a436676b758f48f835c3a2d4768b798c15a7f1"
	netOne = "b1a5c8f7f0c1d2e3a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a1b"
)

// The times are far away, so that "… ago" is the same for both clients.
const containersJSON = `[
 {"Id":"` + idWeb + `","Names":["/web","/other/link"],"Image":"docker.io/library/nginx:1.27@sha256:1111111111111111111111111111111111111111111111111111111111111111","ImageID":"` + imgOne + `",
  "Command":"/docker-entrypoint.sh nginx -g 'daemon off;'","Created":1600000000,"State":"running","Status":"Up 3 years",
  "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":443,"Type":"tcp"},{"PrivatePort":444,"Type":"tcp"},
           {"IP":"0.0.0.0","PrivatePort":9000,"PublicPort":9000,"Type":"udp"},{"IP":"0.0.0.0","PrivatePort":9001,"PublicPort":9001,"Type":"udp"}],
  "Labels":{"b":"2","a":"1","com.example.some-label":"x"},"SizeRw":1095,"SizeRootFs":187654321,
  "HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"Networks":{"bridge":{"NetworkID":"` + netOne + `"}}},
  "Mounts":[{"Type":"volume","Name":"averyveryverylongvolumename","Source":"","Destination":"/data","Driver":"local"},{"Type":"bind","Source":"/srv/www","Destination":"/www"}]},
 {"Id":"` + idDB + `","Names":["/db"],"Image":"` + imgTwo + `","ImageID":"` + imgTwo + `","Command":"redis-server","Created":1500000000,"State":"exited","Status":"Exited (0) 4 years ago","Ports":[],"Labels":{},
  "HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"Networks":{}},"Mounts":[]},
 {"Id":"` + idNew + `","Names":["/日本語の名前"],"Image":"<none>","ImageID":"","Command":"sh -c 'echo ünïcödé 日本語日本語日本語日本語日本語'","Created":1400000000,"State":"created","Status":"Created","Ports":null,"Labels":null,"Mounts":null}
]`

const imagesJSON = `[
 {"Id":"` + imgOne + `","ParentId":"","RepoTags":["nginx:1.27","nginx:latest","registry.example.com:5000/team/nginx:v1"],"RepoDigests":["nginx@sha256:1111111111111111111111111111111111111111111111111111111111111111"],"Created":1600000000,"Size":187654321,"SharedSize":-1,"Containers":-1,"Labels":{"a":"1"}},
 {"Id":"` + imgTwo + `","ParentId":"","RepoTags":[],"RepoDigests":[],"Created":1500000000,"Size":1234,"SharedSize":12,"Containers":2,"Labels":null},
 {"Id":"sha256:2222222222222222222222222222222222222222222222222222222222222222","RepoTags":null,"RepoDigests":["busybox@sha256:3333333333333333333333333333333333333333333333333333333333333333"],"Created":1400000000,"Size":999999999999,"SharedSize":0,"Containers":0,"Labels":null}
]`

func containerJSON(id, name string, tty, running, autoRemove bool) string {
	return fmt.Sprintf(`{"Id":%q,"Created":"2020-09-13T12:26:40.123456789Z","Path":"nginx","Args":["-g","daemon off;"],
"State":{"Status":"running","Running":%t,"Paused":false,"Restarting":false,"OOMKilled":false,"Dead":false,"Pid":4242,"ExitCode":0,"Error":"","StartedAt":"2020-09-13T12:26:41Z","FinishedAt":"0001-01-01T00:00:00Z"},
"Image":%q,"Name":"/%s","RestartCount":0,"Driver":"overlay2","HostConfig":{"Binds":null,"AutoRemove":%t,"LogConfig":{"Type":"json-file","Config":{}},"NetworkMode":"bridge","PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}},
"Config":{"Hostname":"h","Tty":%t,"OpenStdin":true,"Env":["A=1","B=<&>"],"Cmd":["nginx"],"Image":"nginx","Labels":{"x":"y"}},
"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"443/tcp":null,"10000/udp":[{"HostIp":"127.0.0.1","HostPort":"9"}]},"Networks":{}},"UnknownField":{"Deep":[1,2,3]}}`,
		id, running, imgOne, name, autoRemove, tty)
}

const infoJSON = `{"ID":"abc","Containers":3,"ContainersRunning":1,"ContainersPaused":0,"ContainersStopped":2,"Images":7,"Driver":"overlay2","DriverStatus":[["Backing Filesystem","extfs"],["Supports d_type","true"]],
"Plugins":{"Volume":["local"],"Network":["bridge","host"],"Authorization":null,"Log":["json-file","local"]},"MemoryLimit":true,"SwapLimit":true,"NCPU":2,"MemTotal":8000000000,"Name":"box","Labels":["a=b"],"ExperimentalBuild":false,
"ServerVersion":"28.2.2","KernelVersion":"6.1","OperatingSystem":"Debian","OSType":"linux","Architecture":"x86_64","IndexServerAddress":"https://index.docker.io/v1/","DockerRootDir":"/var/lib/docker","HttpProxy":"http://p","LoggingDriver":"json-file","CgroupDriver":"cgroupfs","CgroupVersion":"2",
"Runtimes":{"runc":{"path":"runc"}},"DefaultRuntime":"runc","Swarm":{"LocalNodeState":"inactive"},"LiveRestoreEnabled":false,"InitBinary":"docker-init","ContainerdCommit":{"ID":"c1"},"RuncCommit":{"ID":"r1"},"InitCommit":{"ID":"i1"},
"SecurityOptions":["name=apparmor","name=seccomp,profile=builtin","name=cgroupns"],"CDISpecDirs":["/etc/cdi"],"DefaultAddressPools":[{"Base":"10.0.0.0/8","Size":24}],"RegistryConfig":{"InsecureRegistryCIDRs":["127.0.0.0/8"],"IndexConfigs":{"docker.io":{"Name":"docker.io","Secure":true,"Official":true}},"Mirrors":["https://m/"]},"Warnings":["WARNING: something"]}`

const versionJSON = `{"Platform":{"Name":"Engine"},"Components":[{"Name":"Engine","Version":"28.2.2","Details":{"ApiVersion":"1.50","Arch":"amd64","BuildTime":"2025-05-30T12:00:00.000000000+00:00","Experimental":"false","GitCommit":"abc","GoVersion":"go1.24","KernelVersion":"6.1","MinAPIVersion":"1.24","Os":"linux"}},{"Name":"containerd","Version":"1.7","Details":{"GitCommit":"def"}}],"Version":"28.2.2","ApiVersion":"1.50","MinAPIVersion":"1.24","GitCommit":"abc","GoVersion":"go1.24","Os":"linux","Arch":"amd64","KernelVersion":"6.1","BuildTime":"2025-05-30T12:00:00.000000000+00:00"}`

const pullJSON = `{"status":"Pulling from library/busybox","id":"latest"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Downloading","progressDetail":{"current":1024,"total":2048},"progress":"[====>   ]","id":"aaaaaaaaaaaa"}
{"status":"Download complete","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Pull complete","progressDetail":{},"id":"aaaaaaaaaaaa"}
{"status":"Digest: sha256:1111111111111111111111111111111111111111111111111111111111111111"}
{"status":"Status: Downloaded newer image for busybox:latest"}
`

const networksJSON = `[{"Name":"none","Id":"` + idDB + `","Created":"2020-01-01T00:00:00Z","Scope":"local","Driver":"null","EnableIPv4":true,"EnableIPv6":false,"Internal":false,"Labels":{}},
{"Name":"bridge","Id":"` + netOne + `","Created":"2020-01-01T00:00:00Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":false,"Internal":false,"Labels":{"k":"v"}},
{"Name":"net10","Id":"` + idWeb + `","Created":"2020-01-01T00:00:00Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":true,"Internal":true,"Labels":{}},
{"Name":"net9","Id":"` + idNew + `","Created":"2020-01-01T00:00:00Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":true,"Internal":true,"Labels":{}}]`

const historyJSON = `[{"Id":"` + imgOne + `","Created":1600000000,"CreatedBy":"CMD [\"nginx\" \"-g\" \"daemon off;\"]\twith a tab and a very long line behind it","Tags":["nginx:latest"],"Size":0,"Comment":"buildkit"},
{"Id":"<missing>","Created":1,"CreatedBy":"ADD rootfs","Tags":null,"Size":74800000,"Comment":""}]`

const dfJSON = `{"LayersSize":187655555,"Images":[{"Id":"` + imgOne + `","RepoTags":["nginx:1.27","nginx:latest"],"RepoDigests":[],"Created":1600000000,"Size":187654321,"SharedSize":0,"Containers":1},{"Id":"` + imgTwo + `","RepoTags":["old:1"],"RepoDigests":[],"Created":1500000000,"Size":1234,"SharedSize":0,"Containers":0}],
"Containers":[{"Id":"` + idWeb + `","Names":["/web"],"Image":"nginx","ImageID":"` + imgOne + `","Command":"nginx","Created":1600000000,"State":"running","Status":"Up","SizeRw":1095,"SizeRootFs":5,"Mounts":[{"Driver":"local"}]}],
"Volumes":[{"Name":"vol","Driver":"local","Mountpoint":"/x","Scope":"local","Labels":null,"UsageData":{"RefCount":1,"Size":4096}}],
"BuildCache":[{"ID":"c1aaaaaaaaaaaaaaaaaaa","Type":"regular","Description":"d","InUse":false,"Shared":true,"Size":10,"CreatedAt":"2020-01-01T00:00:00Z","LastUsedAt":"2020-01-02T00:00:00Z","UsageCount":3}]}`

const statsJSON = `{"name":"/web","id":"` + idWeb + `","read":"2020-01-01T00:00:01Z","preread":"2020-01-01T00:00:00Z","pids_stats":{"current":5},"num_procs":0,
"cpu_stats":{"cpu_usage":{"total_usage":200000000,"usage_in_kernelmode":1,"usage_in_usermode":1},"system_cpu_usage":2000000000,"online_cpus":2,"throttling_data":{}},
"precpu_stats":{"cpu_usage":{"total_usage":100000000,"usage_in_kernelmode":1,"usage_in_usermode":1},"system_cpu_usage":1000000000,"online_cpus":2,"throttling_data":{}},
"memory_stats":{"usage":10000000,"stats":{"inactive_file":1000000},"limit":100000000},"networks":{"eth0":{"rx_bytes":1234567,"tx_bytes":7654321}},
"blkio_stats":{"io_service_bytes_recursive":[{"major":8,"minor":0,"op":"read","value":4096},{"major":8,"minor":0,"op":"write","value":8192}]}}`

const eventsJSON = `{"Type":"container","Action":"start","Actor":{"ID":"` + idWeb + `","Attributes":{"name":"web","image":"nginx"}},"scope":"local","time":1600000000,"timeNano":1600000000123456789}
{"Type":"network","Action":"connect","Actor":{"ID":"` + netOne + `","Attributes":{}},"scope":"local","time":1600000001,"timeNano":1600000001000000000}
`

func named(name string) (id string, ok bool) {
	switch {
	case name == "web", name == "tty", name == "auto", strings.HasPrefix(idWeb, name) && len(name) >= 4:
		return idWeb, true
	case name == "db", name == "stopped":
		return idDB, true
	case name == idNew, name == idDB:
		return name, true
	}
	return "", false
}

// apiRoutes is the whole API of the fake; the first route that fits answers.
func apiRoutes() []route {
	return []route{
		on("GET", "/_ping", text("OK")),
		on("GET", "/version", text(versionJSON)),
		on("GET", "/info", text(infoJSON)),
		on("GET", "/containers/json", text(containersJSON)),
		on("GET", "/images/json", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			if strings.Contains(queryOf(c, "filters"), `"ls"`) {
				_, _ = io.WriteString(w, "[]")
				return
			}
			_, _ = io.WriteString(w, imagesJSON)
		}),
		on("GET", "/networks", text(networksJSON)),
		on("GET", "/system/df", text(dfJSON)),
		on("GET", "/events", text(eventsJSON)),
		on("POST", "/auth", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			if strings.Contains(string(c.body), "wrong") {
				fail(w, 401, "Get \"https://r.example.com/v2/\": unauthorized: incorrect username or password")
				return
			}
			_, _ = io.WriteString(w, `{"IdentityToken":"","Status":"Login Succeeded"}`)
		}),
		on("POST", "/(containers|images|networks|volumes|build)/prune", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			_, _ = io.WriteString(w, map[string]string{
				"containers": `{"ContainersDeleted":["` + idDB + `"],"SpaceReclaimed":4096}`,
				"images":     `{"ImagesDeleted":[{"Untagged":"old:1"},{"Deleted":"` + imgTwo + `"}],"SpaceReclaimed":1234}`,
				"networks":   `{"NetworksDeleted":["n1","n2"]}`,
				"volumes":    `{"VolumesDeleted":["v1"],"SpaceReclaimed":10}`,
				"build":      `{"CachesDeleted":["b1"],"SpaceReclaimed":20}`,
			}[c.part[1]])
		}),
		on("POST", "/containers/create", create),
		on("GET", "/containers/([^/]+)/json", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			id, ok := named(c.part[1])
			if !ok {
				fail(w, 404, "No such container: %s", c.part[1])
				return
			}
			_, _ = io.WriteString(w, containerJSON(id, c.part[1], c.part[1] == "tty", c.part[1] != "stopped", c.part[1] == "auto"))
		}),
		on("GET", "/images/([^/]+)/json", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			if c.part[1] != "nginx" {
				fail(w, 404, "No such image: %s:latest", c.part[1])
				return
			}
			_, _ = io.WriteString(w, `{"Id":"`+imgOne+`","RepoTags":["nginx:latest"],"Size":5,"Config":{"Env":["P=1"]},"RootFS":{"Type":"layers"}}`)
		}),
		on("GET", "/networks/([^/]+)", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			if c.part[1] != "bridge" {
				fail(w, 404, "network %s not found", c.part[1])
				return
			}
			_, _ = io.WriteString(w, `{"Name":"bridge","Id":"`+netOne+`","Created":"2020-01-01T00:00:00Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":null,"Config":[{"Subnet":"172.17.0.0/16"}]},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{},"Options":{},"Labels":{}}`)
		}),
		on("GET", "/(volumes|plugins)/([^/]+)(/json)?", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			fail(w, 404, "%s %s not found", c.part[1], c.part[2])
		}),
		on("POST", "/containers/([^/]+)/start", start),
		on("POST", "/containers/([^/]+)/(stop|restart|kill|pause|unpause|rename|resize)", status(204)),
		on("DELETE", "/containers/([^/]+)", status(204)),
		on("POST", "/containers/([^/]+)/update", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			if !fault(w, c.part[1]) {
				_, _ = io.WriteString(w, `{"Warnings":["memory is not what it was"]}`)
			}
		}),
		on("POST", "/containers/([^/]+)/wait", wait),
		on("POST", "/containers/([^/]+)/attach", attach),
		on("GET", "/containers/([^/]+)/logs", func(_ *fakeDaemon, w http.ResponseWriter, _ *call) {
			_, _ = w.Write(frame(1, "to stdout\n"))
			_, _ = w.Write(frame(2, "to stderr\n"))
			_, _ = w.Write(frame(1, "again\n"))
		}),
		on("GET", "/containers/([^/]+)/top", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			if !fault(w, c.part[1]) {
				_, _ = io.WriteString(w, `{"Titles":["UID","PID","PPID","C","STIME","TTY","TIME","CMD"],"Processes":[["root","4242","4200","0","10:00","?","00:00:00","nginx: master process nginx -g daemon off;"],["101","4300","4242","0","10:00","?","00:00:00","nginx: worker process"]]}`)
			}
		}),
		on("GET", "/containers/([^/]+)/changes", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			if !fault(w, c.part[1]) {
				_, _ = io.WriteString(w, `[{"Path":"/etc","Kind":0},{"Path":"/etc/new","Kind":1},{"Path":"/gone","Kind":2}]`)
			}
		}),
		on("GET", "/containers/([^/]+)/stats", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			if !fault(w, c.part[1]) {
				_, _ = io.WriteString(w, statsJSON)
			}
		}),
		on("GET", "/containers/([^/]+)/export", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			if !fault(w, c.part[1]) {
				_, _ = io.WriteString(w, "tar of "+c.part[1])
			}
		}),
		on("POST", "/containers/([^/]+)/exec", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			if fault(w, c.part[1]) {
				return
			}
			id := "exec0"
			if strings.Contains(string(c.body), `"fail"`) {
				id = "exec7"
			}
			w.WriteHeader(201)
			_, _ = io.WriteString(w, `{"Id":"`+id+`"}`)
		}),
		on("POST", "/exec/([^/]+)/start", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			if strings.Contains(string(c.body), `"Detach":true`) {
				return
			}
			conn, _, err := hijack(w)
			if err != nil {
				return
			}
			_, _ = conn.Write(frame(1, "exec says hello\n"))
			_, _ = conn.Write(frame(2, "and this on stderr\n"))
			_ = conn.(client.CloseWriter).CloseWrite()
			_, _ = io.Copy(io.Discard, conn) // what is typed; closing before would reset the connection
			_ = conn.Close()
		}),
		on("POST", "/exec/([^/]+)/resize", status(200)),
		on("GET", "/exec/([^/]+)/json", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			_, _ = io.WriteString(w, `{"ID":"`+c.part[1]+`","Running":false,"ExitCode":`+strings.TrimPrefix(c.part[1], "exec")+`}`)
		}),
		on("POST", "/images/create", func(d *fakeDaemon, w http.ResponseWriter, c *call) {
			switch {
			case strings.Contains(queryOf(c, "fromImage"), "denied"):
				fail(w, 404, "pull access denied for denied, repository does not exist or may require 'docker login': denied: requested access to the resource is denied")
			case strings.Contains(queryOf(c, "fromImage"), "broken"):
				_, _ = io.WriteString(w, `{"status":"Pulling from library/broken","id":"latest"}`+"\n"+`{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}`+"\n")
			case queryOf(c, "fromSrc") != "":
				_, _ = io.WriteString(w, `{"status":"`+imgOne+`"}`+"\n")
			default:
				d.mu.Lock()
				d.pulled = true
				d.mu.Unlock()
				_, _ = io.WriteString(w, pullJSON)
			}
		}),
		on("POST", "/images/load", func(_ *fakeDaemon, w http.ResponseWriter, _ *call) {
			_, _ = io.WriteString(w, `{"stream":"Loaded image: busybox:latest\n"}`+"\n")
		}),
		on("POST", "/images/(.+)/push", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			_, _ = io.WriteString(w, `{"status":"The push refers to repository [`+c.part[1]+`]"}`+"\n"+`{"status":"Preparing","progressDetail":{},"id":"aaaaaaaaaaaa"}`+"\n"+
				`{"status":"Pushed","progressDetail":{},"id":"aaaaaaaaaaaa"}`+"\n"+`{"status":"latest: digest: sha256:11 size: 527"}`+"\n"+`{"progressDetail":{},"aux":{"Tag":"latest","Digest":"sha256:11","Size":527}}`+"\n")
		}),
		on("POST", "/images/(.+)/tag", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			if strings.HasPrefix(c.part[1], "missing") {
				fail(w, 404, "No such image: %s:latest", c.part[1])
				return
			}
			w.WriteHeader(201)
		}),
		on("GET", "/images/([^/]+)/history", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			if strings.HasPrefix(c.part[1], "missing") {
				fail(w, 404, "No such image: %s:latest", c.part[1])
				return
			}
			_, _ = io.WriteString(w, historyJSON)
		}),
		on("GET", "/images/get", text("tar of images")),
		on("GET", "/images/([^/]+)/get", text("tar of image")),
		on("DELETE", "/images/(.+)", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			switch {
			case strings.HasPrefix(c.part[1], "missing"):
				fail(w, 404, "No such image: %s:latest", c.part[1])
			case c.part[1] == "used":
				fail(w, 409, "conflict: unable to remove repository reference \"used\" (must force) - container 4c01db0b339c is using its referenced image 7cfbbec8963d")
			default:
				_, _ = io.WriteString(w, `[{"Untagged":"`+c.part[1]+`:latest"},{"Deleted":"`+imgOne+`"}]`)
			}
		}),
		on("DELETE", "/networks/([^/]+)", func(_ *fakeDaemon, w http.ResponseWriter, c *call) {
			if strings.HasPrefix(c.part[1], "missing") {
				fail(w, 404, "network %s not found", c.part[1])
				return
			}
			w.WriteHeader(204)
		}),
	}
}

// create makes the container idNew. The image "absent" is there only after a pull, "missing" never; "unstartable" and
// the like give containers whose start fails.
func create(d *fakeDaemon, w http.ResponseWriter, c *call) {
	var request struct {
		Image string
		Cmd   []string
	}
	_ = json.Unmarshal(c.body, &request)
	d.mu.Lock()
	pulled := d.pulled
	d.mu.Unlock()
	switch {
	case queryOf(c, "name") == "taken":
		fail(w, 409, `Conflict. The container name "/taken" is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.`, idWeb)
		return
	case strings.HasPrefix(request.Image, "absent") && !pulled, strings.HasPrefix(request.Image, "denied"), strings.HasPrefix(request.Image, "broken"):
		fail(w, 404, "No such image: %s:latest", request.Image)
		return
	case request.Image == "invalid":
		fail(w, 400, "invalid reference format")
		return
	}
	w.WriteHeader(201)
	warnings := "[]"
	if request.Image == "warns" {
		warnings = `["Your kernel does not support swap limit capabilities","second"]`
	}
	id := idNew
	if len(request.Cmd) > 0 {
		switch request.Cmd[0] {
		case "nosuch":
			id = "nosuch"
		case "noexec":
			id = "noexec"
		case "exit3":
			id = "exit3"
		}
	}
	_, _ = io.WriteString(w, `{"Id":"`+id+`","Warnings":`+warnings+`}`)
}

// start lets the waits for an exit come back.
func start(d *fakeDaemon, w http.ResponseWriter, c *call) {
	switch name := c.part[1]; name {
	case "nosuch":
		fail(w, 400, `failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: "nosuch": executable file not found in $PATH`)
	case "noexec":
		fail(w, 400, `failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: "/etc": permission denied`)
	default:
		if !fault(w, name) {
			w.WriteHeader(204)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.started:
	default:
		close(d.started)
	}
}

func wait(d *fakeDaemon, w http.ResponseWriter, c *call) {
	if fault(w, c.part[1]) {
		return
	}
	w.WriteHeader(200)
	_ = http.NewResponseController(w).Flush()
	code := 0
	if c.part[1] == "exit3" {
		code = 3
	}
	if condition := queryOf(c, "condition"); condition == "next-exit" || condition == "removed" {
		select {
		case <-d.started:
		case <-c.Context().Done():
			return
		}
	}
	_, _ = fmt.Fprintf(w, `{"StatusCode":%d}`, code)
}

func attach(d *fakeDaemon, w http.ResponseWriter, c *call) {
	conn, _, err := hijack(w)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	if id := c.part[1]; id == "nosuch" || id == "noexec" {
		// What never ran wrote nothing: a word here would race with the refused start.
		<-d.started
		return
	}
	if queryOf(c, "stdin") == "1" {
		in, _ := io.ReadAll(conn)
		if queryOf(c, "stdout") == "1" {
			_, _ = conn.Write(frame(1, "read "+string(in)))
		}
		return
	}
	if queryOf(c, "stdout") == "1" {
		_, _ = conn.Write(frame(1, "hello from the container\n"))
	}
	if queryOf(c, "stderr") == "1" {
		_, _ = conn.Write(frame(2, "a complaint\n"))
	}
}
