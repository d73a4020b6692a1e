package httpapi

// Access is what a client must be allowed to do for an operation. The levels
// contain each other: Control can do everything.
type Access int

const (
	// Public operations tell nothing but that an engine is there.
	Public Access = iota
	// Read shows objects. Configurations may hold secrets of their owners.
	Read
	// Operate changes the state of objects that exist: start, stop, attach.
	Operate
	// Control creates and removes objects, which is to be root on the host.
	Control
)

// Limits of request bodies in bytes.
const (
	// smallBody is what an operation takes that has no body of its own: some
	// clients send "{}" or a form.
	smallBody int64 = 64 << 10
	// jsonBody bounds a JSON document.
	jsonBody int64 = 4 << 20
	// Unbounded bodies are streams that the handler reads piece by piece.
	Unbounded int64 = -1
)

// Route is one operation of the API.
type Route struct {
	// Operation is the operation's id in Docker's API description; what is
	// not described there is named in the same way.
	Operation string
	// Method and Path; {name} takes any text, slashes included.
	Method, Path string
	// Min and Max bound the versions that know the operation; 0 is no bound.
	Min, Max Version
	Access   Access
	// Body bounds the request's body in bytes; 0 when the operation has none.
	Body int64

	handle func(*API, *answer, *request) error
}

// Routes is the whole API. The first route that matches serves a request.
func Routes() []Route {
	return []Route{
		{"SystemPing", "GET", "/_ping", 0, 0, Public, 0, (*API).systemPing},
		{"SystemPingHead", "HEAD", "/_ping", 0, 0, Public, 0, (*API).systemPing},
		{"SystemVersion", "GET", "/version", 0, 0, Public, 0, (*API).systemVersion},
		{"SystemInfo", "GET", "/info", 0, 0, Read, 0, (*API).systemInfo},
		{"SystemEvents", "GET", "/events", 0, 0, Read, 0, (*API).systemEvents},
		{"SystemDataUsage", "GET", "/system/df", one(25), 0, Read, 0, (*API).systemDataUsage},
		{"SystemAuth", "POST", "/auth", 0, 0, Read, jsonBody, (*API).systemAuth},

		{"ContainerList", "GET", "/containers/json", 0, 0, Read, 0, (*API).containerList},
		{"ContainerCreate", "POST", "/containers/create", 0, 0, Control, jsonBody, (*API).containerCreate},
		{"ContainerPrune", "POST", "/containers/prune", one(25), 0, Control, 0, (*API).containerPrune},
		{"ContainerCheckpointCreate", "POST", "/containers/{id}/checkpoints", 0, 0, Operate, jsonBody, (*API).notHere},
		{"ContainerCheckpointList", "GET", "/containers/{id}/checkpoints", 0, 0, Read, 0, (*API).notHere},
		{"ContainerCheckpointDelete", "DELETE", "/containers/{id}/checkpoints/{checkpoint}", 0, 0, Operate, 0, (*API).notHere},
		{"ContainerArchiveInfo", "HEAD", "/containers/{id}/archive", 0, 0, Read, 0, (*API).notHere},
		{"ContainerArchive", "GET", "/containers/{id}/archive", 0, 0, Read, 0, (*API).notHere},
		{"PutContainerArchive", "PUT", "/containers/{id}/archive", 0, 0, Control, Unbounded, (*API).notHere},
		{"ContainerInspect", "GET", "/containers/{id}/json", 0, 0, Read, 0, (*API).containerInspect},
		{"ContainerTop", "GET", "/containers/{id}/top", 0, 0, Read, 0, (*API).containerTop},
		{"ContainerLogs", "GET", "/containers/{id}/logs", 0, 0, Read, 0, (*API).containerLogs},
		{"ContainerChanges", "GET", "/containers/{id}/changes", 0, 0, Read, 0, (*API).containerChanges},
		{"ContainerExport", "GET", "/containers/{id}/export", 0, 0, Read, 0, (*API).containerExport},
		{"ContainerStats", "GET", "/containers/{id}/stats", 0, 0, Read, 0, (*API).containerStats},
		{"ContainerAttachWebsocket", "GET", "/containers/{id}/attach/ws", 0, 0, Operate, 0, (*API).containerAttachWebsocket},
		{"ContainerStart", "POST", "/containers/{id}/start", 0, 0, Operate, 0, (*API).containerStart},
		{"ContainerStop", "POST", "/containers/{id}/stop", 0, 0, Operate, 0, (*API).containerStop},
		{"ContainerRestart", "POST", "/containers/{id}/restart", 0, 0, Operate, 0, (*API).containerRestart},
		{"ContainerKill", "POST", "/containers/{id}/kill", 0, 0, Operate, 0, (*API).containerKill},
		{"ContainerPause", "POST", "/containers/{id}/pause", 0, 0, Operate, 0, (*API).containerPause},
		{"ContainerUnpause", "POST", "/containers/{id}/unpause", 0, 0, Operate, 0, (*API).containerUnpause},
		{"ContainerWait", "POST", "/containers/{id}/wait", 0, 0, Read, 0, (*API).containerWait},
		{"ContainerResize", "POST", "/containers/{id}/resize", 0, 0, Operate, 0, (*API).containerResize},
		{"ContainerAttach", "POST", "/containers/{id}/attach", 0, 0, Operate, 0, (*API).containerAttach},
		{"ContainerRename", "POST", "/containers/{id}/rename", 0, 0, Operate, 0, (*API).containerRename},
		{"ContainerUpdate", "POST", "/containers/{id}/update", 0, 0, Operate, jsonBody, (*API).containerUpdate},
		{"ContainerExec", "POST", "/containers/{id}/exec", 0, 0, Operate, jsonBody, (*API).execCreate},
		{"ContainerDelete", "DELETE", "/containers/{id}", 0, 0, Control, 0, (*API).containerDelete},

		{"ExecInspect", "GET", "/exec/{id}/json", 0, 0, Read, 0, (*API).execInspect},
		{"ExecStart", "POST", "/exec/{id}/start", 0, 0, Operate, jsonBody, (*API).execStart},
		{"ExecResize", "POST", "/exec/{id}/resize", 0, 0, Operate, 0, (*API).execResize},

		{"ImageList", "GET", "/images/json", 0, 0, Read, 0, (*API).imageList},
		{"ImageSearch", "GET", "/images/search", 0, 0, Read, 0, (*API).notHere},
		{"ImageGetAll", "GET", "/images/get", 0, 0, Read, 0, (*API).imageSave},
		{"ImageGet", "GET", "/images/{name}/get", 0, 0, Read, 0, (*API).imageSave},
		{"ImageHistory", "GET", "/images/{name}/history", 0, 0, Read, 0, (*API).imageHistory},
		{"ImageInspect", "GET", "/images/{name}/json", 0, 0, Read, 0, (*API).imageInspect},
		{"ImageAttestations", "GET", "/images/{name}/attestations", one(55), 0, Read, 0, (*API).notHere},
		{"ImageLoad", "POST", "/images/load", 0, 0, Control, Unbounded, (*API).imageLoad},
		{"ImageCreate", "POST", "/images/create", 0, 0, Control, Unbounded, (*API).imageCreate},
		{"ImagePrune", "POST", "/images/prune", one(25), 0, Control, 0, (*API).imagePrune},
		{"ImagePush", "POST", "/images/{name}/push", 0, 0, Control, jsonBody, (*API).imagePush},
		{"ImageTag", "POST", "/images/{name}/tag", 0, 0, Control, 0, (*API).imageTag},
		{"ImageDelete", "DELETE", "/images/{name}", 0, 0, Control, 0, (*API).imageDelete},
		{"ImageCommit", "POST", "/commit", 0, 0, Control, jsonBody, (*API).notHere},
		{"DistributionInspect", "GET", "/distribution/{name}/json", 0, 0, Read, 0, (*API).notHere},

		{"NetworkAudit", "GET", "/orlop/network/audit", 0, 0, Read, 0, (*API).networkAudit},
		{"NetworkList", "GET", "/networks", 0, 0, Read, 0, (*API).networkList},
		{"NetworkListSlash", "GET", "/networks/", 0, 0, Read, 0, (*API).networkList},
		{"NetworkInspect", "GET", "/networks/{id}", 0, 0, Read, 0, (*API).networkInspect},
		{"NetworkCreate", "POST", "/networks/create", 0, 0, Control, jsonBody, (*API).networkCreate},
		{"NetworkPrune", "POST", "/networks/prune", one(25), 0, Control, 0, (*API).networkPrune},
		{"NetworkConnect", "POST", "/networks/{id}/connect", 0, 0, Operate, jsonBody, (*API).networkConnect},
		{"NetworkDisconnect", "POST", "/networks/{id}/disconnect", 0, 0, Operate, jsonBody, (*API).networkDisconnect},
		{"NetworkDelete", "DELETE", "/networks/{id}", 0, 0, Control, 0, (*API).networkDelete},

		{"OrlopPortHandover", "POST", "/orlop/ports/handover", 0, 0, Operate, 0, (*API).portHandOver},

		{"VolumeList", "GET", "/volumes", 0, 0, Read, 0, (*API).volumeList},
		{"VolumeInspect", "GET", "/volumes/{name}", 0, 0, Read, 0, (*API).volumeInspect},
		{"VolumeCreate", "POST", "/volumes/create", 0, 0, Control, jsonBody, (*API).notHere},
		{"VolumePrune", "POST", "/volumes/prune", one(25), 0, Control, 0, (*API).notHere},
		{"VolumeUpdate", "PUT", "/volumes/{name}", one(42), 0, Control, jsonBody, (*API).notHere},
		{"VolumeDelete", "DELETE", "/volumes/{name}", 0, 0, Control, 0, (*API).notHere},

		{"ImageBuild", "POST", "/build", 0, 0, Control, Unbounded, (*API).notHere},
		{"BuildPrune", "POST", "/build/prune", one(31), 0, Control, 0, (*API).nothingToPrune},
		{"BuildCancel", "POST", "/build/cancel", 0, 0, Control, 0, (*API).notHere},
		{"Session", "POST", "/session", 0, 0, Control, Unbounded, (*API).notHere},
		{"Grpc", "POST", "/grpc", 0, 0, Control, Unbounded, (*API).notHere},

		{"PluginList", "GET", "/plugins", 0, 0, Read, 0, (*API).noPlugins},
		{"GetPluginPrivileges", "GET", "/plugins/privileges", 0, 0, Read, 0, (*API).notHere},
		{"PluginInspect", "GET", "/plugins/{name}/json", 0, 0, Read, 0, (*API).noPlugin},
		{"PluginDelete", "DELETE", "/plugins/{name}", 0, 0, Control, 0, (*API).noPlugin},
		{"PluginEnable", "POST", "/plugins/{name}/enable", 0, 0, Control, 0, (*API).noPlugin},
		{"PluginDisable", "POST", "/plugins/{name}/disable", 0, 0, Control, 0, (*API).noPlugin},
		{"PluginPull", "POST", "/plugins/pull", 0, 0, Control, jsonBody, (*API).notHere},
		{"PluginPush", "POST", "/plugins/{name}/push", 0, 0, Control, jsonBody, (*API).noPlugin},
		{"PluginUpgrade", "POST", "/plugins/{name}/upgrade", one(26), 0, Control, jsonBody, (*API).noPlugin},
		{"PluginSet", "POST", "/plugins/{name}/set", 0, 0, Control, jsonBody, (*API).noPlugin},
		{"PluginCreate", "POST", "/plugins/create", 0, 0, Control, Unbounded, (*API).notHere},

		{"SwarmInspect", "GET", "/swarm", 0, 0, Read, 0, (*API).noSwarm},
		{"SwarmInit", "POST", "/swarm/init", 0, 0, Control, jsonBody, (*API).notHere},
		{"SwarmJoin", "POST", "/swarm/join", 0, 0, Control, jsonBody, (*API).notHere},
		{"SwarmLeave", "POST", "/swarm/leave", 0, 0, Control, 0, (*API).noSwarm},
		{"SwarmUpdate", "POST", "/swarm/update", 0, 0, Control, jsonBody, (*API).noSwarm},
		{"SwarmUnlockkey", "GET", "/swarm/unlockkey", 0, 0, Control, 0, (*API).noSwarm},
		{"SwarmUnlock", "POST", "/swarm/unlock", 0, 0, Control, jsonBody, (*API).noSwarm},
		{"NodeList", "GET", "/nodes", 0, 0, Read, 0, (*API).noSwarm},
		{"NodeInspect", "GET", "/nodes/{id}", 0, 0, Read, 0, (*API).noSwarm},
		{"NodeDelete", "DELETE", "/nodes/{id}", 0, 0, Control, 0, (*API).noSwarm},
		{"NodeUpdate", "POST", "/nodes/{id}/update", 0, 0, Control, jsonBody, (*API).noSwarm},
		{"ServiceList", "GET", "/services", 0, 0, Read, 0, (*API).noSwarm},
		{"ServiceCreate", "POST", "/services/create", 0, 0, Control, jsonBody, (*API).noSwarm},
		{"ServiceUpdate", "POST", "/services/{id}/update", 0, 0, Control, jsonBody, (*API).noSwarm},
		{"ServiceLogs", "GET", "/services/{id}/logs", 0, 0, Read, 0, (*API).noSwarm},
		{"ServiceInspect", "GET", "/services/{id}", 0, 0, Read, 0, (*API).noSwarm},
		{"ServiceDelete", "DELETE", "/services/{id}", 0, 0, Control, 0, (*API).noSwarm},
		{"TaskList", "GET", "/tasks", 0, 0, Read, 0, (*API).noSwarm},
		{"TaskLogs", "GET", "/tasks/{id}/logs", 0, 0, Read, 0, (*API).noSwarm},
		{"TaskInspect", "GET", "/tasks/{id}", 0, 0, Read, 0, (*API).noSwarm},
		{"SecretList", "GET", "/secrets", one(25), 0, Read, 0, (*API).noSwarm},
		{"SecretCreate", "POST", "/secrets/create", one(25), 0, Control, jsonBody, (*API).noSwarm},
		{"SecretUpdate", "POST", "/secrets/{id}/update", one(25), 0, Control, jsonBody, (*API).noSwarm},
		{"SecretInspect", "GET", "/secrets/{id}", one(25), 0, Read, 0, (*API).noSwarm},
		{"SecretDelete", "DELETE", "/secrets/{id}", one(25), 0, Control, 0, (*API).noSwarm},
		{"ConfigList", "GET", "/configs", one(30), 0, Read, 0, (*API).noSwarm},
		{"ConfigCreate", "POST", "/configs/create", one(30), 0, Control, jsonBody, (*API).noSwarm},
		{"ConfigUpdate", "POST", "/configs/{id}/update", one(30), 0, Control, jsonBody, (*API).noSwarm},
		{"ConfigInspect", "GET", "/configs/{id}", one(30), 0, Read, 0, (*API).noSwarm},
		{"ConfigDelete", "DELETE", "/configs/{id}", one(30), 0, Control, 0, (*API).noSwarm},

		{"Options", "OPTIONS", "/{path}", 0, 0, Public, 0, (*API).options},
	}
}
