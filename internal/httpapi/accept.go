package httpapi

import (
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// mediaRange is one element of an Accept header.
type mediaRange struct {
	kind string
	q    float64
}

// parseAccept reads all Accept headers (RFC 9110, 12.5.1). Elements that cannot
// be read are left out.
func parseAccept(h http.Header) []mediaRange {
	var out []mediaRange
	for _, line := range h.Values("Accept") {
		for element := range strings.SplitSeq(line, ",") {
			kind, params, err := mime.ParseMediaType(strings.TrimSpace(element))
			if err != nil {
				continue
			}
			q := 1.0
			if s, ok := params["q"]; ok {
				if q, err = strconv.ParseFloat(s, 64); err != nil {
					continue
				}
			}
			out = append(out, mediaRange{kind, q})
		}
	}
	return out
}
