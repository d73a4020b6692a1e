package monitorside

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/orlop/orlop/internal/monitor/protocol"
)

const exitFile = "exit.json"

// writeExit leaves the exit for a daemon that is not there now. It is replaced
// atomically and not synced: the exec root is a tmpfs, and its boot id says
// which boot it belongs to. When it cannot be written, a daemon that is there
// is still told, and a later one finds the container gone.
func (m *monitor) writeExit(exit protocol.Exit) {
	exit.BootID = m.bootID
	data, err := json.Marshal(exit)
	if err != nil {
		return
	}
	tmp := filepath.Join(m.dir, "."+exitFile)
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return
	}
	_ = os.Rename(tmp, filepath.Join(m.dir, exitFile))
}
