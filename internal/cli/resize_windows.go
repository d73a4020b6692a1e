package cli

import (
	"os"
	"time"
)

// watchSize looks at the console's size four times a second: Windows has no signal for it.
func watchSize(o *output) (changes <-chan os.Signal, stop func()) {
	ch, done := make(chan os.Signal, 1), make(chan struct{})
	go func() {
		height, width := o.size()
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if h, w := o.size(); h != height || w != width {
					height, width = h, w
					ch <- os.Interrupt
				}
			case <-done:
				return
			}
		}
	}()
	return ch, func() { close(done) }
}
