package containers

import (
	"encoding/hex"
	"strconv"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// Words of drawn names: a manner and somebody who went to sea or made others
// able to.
var (
	manners = []string{
		"able", "amber", "bold", "brave", "bright", "brisk", "calm", "candid", "clever", "cool", "crisp", "dapper",
		"daring", "deft", "eager", "early", "elegant", "fair", "fast", "fine", "fleet", "fond", "frank", "gallant",
		"gentle", "glad", "golden", "graceful", "grand", "hardy", "honest", "jolly", "keen", "kind", "lively", "loyal",
		"lucid", "mellow", "merry", "mighty", "modest", "neat", "nimble", "noble", "patient", "placid", "plucky", "proud",
		"quick", "quiet", "ready", "robust", "salty", "serene", "sharp", "silent", "smart", "steady", "stout", "sunny",
		"swift", "tidy", "trim", "trusty", "upbeat", "valiant", "vivid", "warm", "wise", "witty", "young", "zesty",
	}
	people = []string{
		"amundsen", "anning", "barents", "baret", "beaufort", "bering", "bowditch", "bougainville", "byron", "cabot",
		"cartier", "chichester", "columbus", "cook", "cousteau", "dampier", "davis", "dias", "drake", "earle", "elcano",
		"erikson", "fitzroy", "flinders", "franklin", "frobisher", "gama", "gatty", "harrison", "hawkins", "herschel",
		"hudson", "humboldt", "joyon", "kupe", "laperouse", "lightoller", "macarthur", "magellan", "marryat",
		"maury", "mercator", "moitessier", "nansen", "napier", "noonuccal", "parry", "piccard", "polo", "pytheas", "raleigh",
		"ross", "scoresby", "shackleton", "slocum", "stark", "tabarly", "tasman", "tharp", "torres", "tupaia", "vancouver",
		"vespucci", "wallis", "weddell", "zheng",
	}
)

// drawName makes the name of a container out of its (random) id. From the
// second try on a digit follows.
func drawName(id string, try int) string {
	sum := 0
	if raw, err := hex.DecodeString(id[:min(len(id), 8)&^1]); err == nil {
		for _, b := range raw {
			sum = sum<<8 | int(b)
		}
	}
	sum += try * 7919
	name := manners[sum%len(manners)] + "_" + people[sum/len(manners)%len(people)]
	if try > 0 {
		name += strconv.Itoa(sum % 10)
	}
	return name
}

// emptyImage is what a container without an image starts from.
func emptyImage() dockerspec.DockerOCIImage { return dockerspec.DockerOCIImage{} }
