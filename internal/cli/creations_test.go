package cli_test

// creations are run and create with everything that can stand between them and the image.
func creations() []invocation {
	var list []invocation
	add := func(args ...string) {
		for _, a := range args {
			list = append(list, invocation{args: a})
		}
	}
	add("run nginx", "run --rm nginx echo hi", "run -d nginx", "run -d --rm nginx", "run -d --name taken nginx", "run --name taken nginx", "create nginx", "create --name x nginx cmd arg --flag", "create --name taken nginx", "run nginx exit3", "run --rm nginx exit3", "run nginx nosuch", "run --rm nginx nosuch", "run nginx noexec", "run -d nginx nosuch",
		"run -a stdout nginx", "run -a stderr nginx", "run -a stdout -a stderr nginx", "run -a STDIN nginx", "run -a nonsense nginx", "run -d -a stdout nginx", "run -t nginx", "run -it nginx", "run absent", "run -q absent", "run --pull never absent", "run --pull always nginx", "run --pull nonsense nginx", "create --pull nonsense nginx", "run -d absent:1.2", "create absent", "run denied", "run broken",
		"run Upper", "run invalid", "run --platform linux/arm64/v8 nginx", "run --platform linux/arm64 -d absent", "run --platform x/y/z/w nginx", "run warns", "create -q warns", "run --foo nginx", "run --memory nginx", "create --entrypoint='' nginx", "create --entrypoint /bin/sh nginx -c x", "run --sig-proxy=false nginx", "run 4c01db0b339c2f3b0e5a2cb5fcfa5d7eb1e5f9b4b2dd2df1d1f3eae2f3b8a9c1", "run nginx@sha256:1111111111111111111111111111111111111111111111111111111111111111")
	list = append(list,
		invocation{args: "run -i nginx cat", stdin: "typed in\n"}, invocation{args: "run -i -a stdin nginx cat", stdin: "typed in\n"}, invocation{args: "run -i --rm nginx", stdin: ""},
		invocation{args: "run --cidfile cid -d nginx"}, invocation{args: "run --cidfile cid nginx nosuch"}, invocation{args: "run --cidfile cid nginx", files: map[string]string{"cid": "x"}}, invocation{args: "create --cidfile cid --name taken nginx"}, invocation{args: "create --cidfile nodir/cid nginx"},
		invocation{args: "create --env-file env -e C=3 nginx", files: map[string]string{"env": "# c\nA=1\n\n B=two words \nVISIBLE\nNOWHERE\n"}}, invocation{args: "create --env-file env nginx", files: map[string]string{"env": "bad key=1\n"}}, invocation{args: "create --env-file env nginx", files: map[string]string{"env": "=1\n"}}, invocation{args: "create --env-file nofile nginx"},
		invocation{args: "create --label-file labels -l c=3 nginx", files: map[string]string{"labels": "a=1\nb\n#x\n"}}, invocation{args: "create --label-file nofile nginx"},
		invocation{args: "create --security-opt seccomp=profile.json nginx", files: map[string]string{"profile.json": "{\n \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n"}}, invocation{args: "create --security-opt seccomp=profile.json nginx", files: map[string]string{"profile.json": "{nope"}}, invocation{args: "create --security-opt seccomp=nofile nginx"},
		invocation{args: "create nginx", cfg: `{"proxies":{"default":{"httpProxy":"http://p:1","noProxy":"localhost"}}}`}, invocation{args: "create -e HTTP_PROXY=mine nginx", cfg: `{"proxies":{"default":{"httpProxy":"http://p:1"}}}`},
		invocation{args: "create nginx", env: []string{"DOCKER_DEFAULT_PLATFORM=linux/arm64"}},
		invocation{args: "run -d r.example.com/absent", cfg: `{"auths":{"r.example.com":{"auth":"dTpw"}}}`},
	)
	for _, flags := range []string{
		// Ports.
		"-p 80", "-p 8080:80", "-p 127.0.0.1:8080:80", "-p 127.0.0.1::80", "-p [::1]:8080:80", "-p ::1:8080:80", "-p 8080:80/udp", "-p 8080:80/UDP", "-p 8080:80/foo", "-p 8000-8002:80-82", "-p 8000-8002:80", "-p 80-82", "-p 8000-8001:80-82", "-p 0:80", "-p 70000:80", "-p 80:70000", "-p x:80", "-p 80:", "-p :80", "-p ''", "-p a:b:80", "-p 1.2.3:80:80", "-p 8080:80 -p 8081:80 -p 53:53/udp",
		"--publish published=8080,target=80", "--publish published=8080,target=80,protocol=udp", "--publish published=8080,target", "-P --expose 80 --expose 90-92/udp --expose 1/sctp", "--expose x", "--expose 5-1", "--expose ''", "-p 9-1:80", "-p 80:9-1",
		// Volumes and mounts.
		"-v /a:/b", "-v /a:/b:ro", "-v ./rel:/b", "-v .:/b", "-v name:/b", "-v /only", "-v name:/b:ro,z", "-v /a:/b:ro:x", "-v :/b", "-v /a:", "-v ''", "-v c:/x:/y", "-v ab", "-v a:b:c:d", "-v ~/x:/y", "-v /a:/b -v /a:/b -v /c", "--volumes-from web:ro --volumes-from db", "--volume-driver d",
		"--tmpfs /t --tmpfs /u:size=64m,noexec", "--mount type=bind,src=/a,dst=/b", "--mount type=bind,src=/a,dst=/b,readonly", "--mount type=bind,source=./x,target=/b,ro=true", "--mount src=v,dst=/b", "--mount type=volume,src=v,target=/b,volume-driver=d,volume-opt=a=b,volume-label=x=y,volume-nocopy", "--mount type=volume,dst=/b,volume-subpath=s",
		"--mount type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770", "--mount type=tmpfs,dst=/t,tmpfs-mode=9", "--mount type=tmpfs,dst=/t,tmpfs-size=x", "--mount type=bind,src=/a,dst=/b,bind-propagation=rslave", "--mount type=bind,src=/a,dst=/b,bind-recursive=disabled", "--mount type=bind,src=/a,dst=/b,bind-recursive=readonly,readonly,bind-propagation=rprivate", "--mount type=bind,src=/a,dst=/b,bind-recursive=writable", "--mount type=bind,src=/a,dst=/b,bind-recursive=x", "--mount type=image,src=i,dst=/b,image-subpath=p",
		"--mount type=bind,src=/a,dst=/b,nonsense", "--mount type=tmpfs,dst=/b,volume-nocopy", "--mount type=volume,dst=/b,bind-propagation=shared", "--mount type=bind,src=/a,dst=/b,consistency=cached", "--mount type=volume,dst=/b,tmpfs-size=1",
		// Environment, labels, process.
		"-e A=1 -e B= -e VISIBLE -e NOWHERE -e 'C=a b'", "-e =x", "-e ''", "-l a=1 -l b -l c=d=e", "-l =x", "-l 'a b=c'", "-u 1000:1000 -w /w -h host --domainname dom", "--group-add a --group-add 5", "--stop-signal USR1 --stop-timeout 5", "--stop-timeout 0", "--init", "--init=false", "--read-only --privileged --rm", "--restart always", "--restart on-failure:3", "--restart on-failure:x", "--restart :3", "--restart nonsense", "--restart no --rm", "--restart always --rm", "--restart unless-stopped:5", "--restart ''",
		"--ulimit nofile=1024:2048 --ulimit core=0", "--ulimit nofile=2:1", "--ulimit nonsense=1", "--ulimit nofile=x", "--ulimit nofile=-1", "--sysctl net.core.somaxconn=1 --sysctl kernel.shmmax=2", "--sysctl vm.swappiness=1", "--sysctl net", "--annotation a=b --annotation c", "--runtime runsc", "--isolation x", "--shm-size 64m", "--ipc host --pid host --uts host", "--pid container:web --ipc container:web", "--pid nonsense", "--uts nonsense", "--userns host --cgroupns private", "--userns x", "--cgroupns x", "--cgroup-parent /x", "--oom-kill-disable --oom-score-adj -500",
		// Security and devices.
		"--cap-add NET_ADMIN --cap-add cap_sys_time --cap-drop ALL", "--cap-add all", "--security-opt no-new-privileges", "--security-opt no-new-privileges:true", "--security-opt label:disable --security-opt apparmor=unconfined", "--security-opt seccomp=unconfined", "--security-opt nonsense", "--security-opt label=", "--security-opt systempaths=unconfined --security-opt seccomp=builtin",
		"--device /dev/fuse", "--device /dev/a:/dev/b", "--device /dev/a:/dev/b:r", "--device /dev/a:rw", "--device /dev/a:/dev/b:x", "--device a", "--device a:b:c:d", "--device ''", "--device vendor.com/class=dev0", "--device-cgroup-rule 'c 1:3 rwm'", "--device-cgroup-rule nonsense", "--gpus all", "--gpus 2", "--gpus device=0", "--gpus 'driver=nvidia,count=1,\"capabilities=utility,compute\"'", "--gpus x", "--gpus count=x", "--gpus nonsense=1", "--gpus count=1,count=2", "--gpus 'options=a=b'",
		// Resources.
		"-m 64m --memory-reservation 32m --memory-swap -1 --memory-swappiness 10", "-m x", "-m -1", "--memory-swap x", "--memory-swappiness 101", "--memory-swappiness -2", "--cpus 1.5", "--cpus 0.0000000001", "--cpus x", "--cpus 1/3", "-c 512 --cpu-period 100000 --cpu-quota 50000 --cpu-rt-period 1 --cpu-rt-runtime 2 --cpuset-cpus 0-1 --cpuset-mems 0", "--cpu-shares x", "--pids-limit 100", "--pids-limit -1",
		"--blkio-weight 500 --blkio-weight-device /dev/sda:100", "--blkio-weight 99999", "--blkio-weight-device /dev/sda:5", "--blkio-weight-device sda:100", "--blkio-weight-device x", "--device-read-bps /dev/sda:1mb --device-write-bps /dev/sda:2kb --device-read-iops /dev/sda:100 --device-write-iops /dev/sda:200", "--device-read-bps /dev/sda:x", "--device-read-iops /dev/sda:1m", "--device-write-bps x:1", "--storage-opt size=10G", "--storage-opt size", "--io-maxiops 5", "--cpu-count 2",
		// Network.
		"--network host", "--network none", "--network container:web", "--network mynet", "--net mynet --net-alias a --network-alias b", "--network name=mynet,alias=a,alias=b,ip=10.0.0.5,ip6=fd00::5,mac-address=02:42:ac:11:00:02,driver-opt=a=b,gw-priority=5", "--network name=mynet,link-local-ip=169.254.1.1", "--network alias=a", "--network name=mynet,nonsense=1", "--network name=mynet,driver-opt=x", "--network name=mynet,gw-priority=x", "--network a --network b", "--network a --network a", "--network a --network host", "--network host --network-alias x", "--network mynet --ip 10.0.0.5 --ip6 fd00::5 --link-local-ip 169.254.1.1",
		"--network name=mynet,ip=10.0.0.5 --ip 10.0.0.6", "--network name=mynet,alias=a --network-alias b", "--link web:w --link db", "--link a:b:c", "--link ''", "--network mynet --link web:w", "--mac-address 02:42:ac:11:00:02", "--mac-address x", "--network ''", "--dns 8.8.8.8 --dns fd00::1 --dns-search example.com --dns-search . --dns-option ndots:2 --dns-opt timeout:1", "--dns x", "--dns-search 1..2", "--dns-search -x", "--dns-search example.com.", "--add-host a:1.2.3.4 --add-host b=::1 --add-host c:[::2] --add-host d:host-gateway", "--add-host x", "--add-host a:b", "--add-host =1.2.3.4", "--add-host a:b:1.2.3.4", "--ip 10.0.0.5",
		// Logs and health.
		"--log-driver none", "--log-driver json-file --log-opt max-size=10m --log-opt max-file=3", "--log-driver none --log-opt a=b", "--log-opt novalue", "--health-cmd 'curl x' --health-interval 5s --health-timeout 1m --health-retries 3 --health-start-period 2s --health-start-interval 1s", "--no-healthcheck", "--no-healthcheck --health-cmd x", "--health-interval -1s", "--health-retries -1", "--health-interval x", "--health-timeout 5s",
		// Older spellings and attachment.
		"-it", "-i -a stdin", "-a stdout",
	} {
		list = append(list, invocation{args: "create " + flags + " nginx cmd"})
	}
	return list
}
