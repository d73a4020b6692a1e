package nameserver

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
)

// Names are answered from the bytes of a question and into the bytes of an
// answer (RFC 1035 section 4), without an object in between: a container that
// asks a thousand times a second should not be felt.

// Record types, classes and codes, as in the registry of IANA.
const (
	typeA, typeSOA, typePTR, typeAAAA, typeOPT = 1, 6, 12, 28, 41

	classINET, classANY = 1, 255

	rcodeSuccess, rcodeFormat, rcodeFailure, rcodeNameError, rcodeNotImplemented = 0, 1, 2, 3, 4
	// rcodeVersion needs EDNS: its upper bits are in the OPT record.
	rcodeVersion = 16

	headerSize = 12
	optSize    = 11
	// plainSize is what a client takes by UDP that does not say more;
	// ednsSize is what we say that we take (the DNS flag day's advice).
	plainSize, ednsSize = 512, 1232
	maxMessage          = 0xffff
)

// Bits of the third and fourth byte of a message.
const (
	bitResponse, maskOpcode, bitTruncated, bitRecurse = 0x80, 0x78, 0x02, 0x01
	bitAvailable, bitNoCheck, maskRcode               = 0x80, 0x10, 0x0f
)

// errMalformed: the bytes are no DNS message.
var errMalformed = errors.New("malformed message")

// query is a question as it came. Its slices point into the message but for
// name.
type query struct {
	raw []byte
	// end is where the question ends.
	end int
	// name in lower case with dots and without the last one; plain is false
	// when it cannot be written like that, which no name of ours needs.
	name        []byte
	plain       bool
	kind, class uint16
	// edns, its size and the bit that asks for signatures.
	edns, secure bool
	size         int
	version      byte
	// opcode is not 0 for what is no question.
	opcode byte
	// key of the cache, once it was looked for there.
	key []byte
}

// errNoQuestion: nobody expects an answer.
var errNoQuestion = errors.New("not a question")

// parse reads a message into q, whose buffers are used again. errNoQuestion
// for what must not be answered, errMalformed for what is answered with an
// error.
func (q *query) parse(raw []byte) error {
	*q = query{raw: raw, end: headerSize, name: q.name[:0], key: q.key[:0], plain: true, size: plainSize}
	if len(raw) < headerSize || raw[2]&bitResponse != 0 {
		return errNoQuestion
	}
	q.opcode = raw[2] & maskOpcode >> 3
	if q.opcode != 0 {
		return nil
	}
	if binary.BigEndian.Uint16(raw[4:]) != 1 {
		return errMalformed
	}
	at, length := headerSize, 1
	for {
		if at >= len(raw) {
			return errMalformed
		}
		n := int(raw[at])
		at++
		if n == 0 {
			break
		}
		// A pointer has nothing to point to in a question.
		if length += n + 1; n > 63 || length > 255 || at+n > len(raw) {
			return errMalformed
		}
		if len(q.name) > 0 {
			q.name = append(q.name, '.')
		}
		for _, c := range raw[at : at+n] {
			if c <= ' ' || c > '~' || c == '.' || c == '\\' {
				q.plain = false
			}
			q.name = append(q.name, lower(c))
		}
		at += n
	}
	if at+4 > len(raw) {
		return errMalformed
	}
	q.kind, q.class = binary.BigEndian.Uint16(raw[at:]), binary.BigEndian.Uint16(raw[at+2:])
	q.end = at + 4
	err := records(raw, q.end, func(r record) bool {
		if r.section == additional && r.kind == typeOPT && !q.edns {
			q.edns, q.version, q.secure = true, raw[r.ttl+1], raw[r.ttl+2]&0x80 != 0
			q.size = max(plainSize, int(r.class))
		}
		return true
	})
	if err != nil {
		*q = query{raw: raw, end: q.end, name: q.name, key: q.key, kind: q.kind, class: q.class, size: plainSize}
	}
	return err
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// answer is one that is being written.
type answer struct {
	q     *query
	out   []byte
	limit int
	count uint16
	full  bool
}

// reply begins an answer in buf that may become limit bytes long.
func (q *query) reply(buf []byte, limit int) *answer {
	a := &answer{q: q, out: append(buf[:0], q.raw[:headerSize]...), limit: limit}
	a.out[2] = bitResponse | q.raw[2]&(maskOpcode|bitRecurse)
	a.out[3] = bitAvailable | q.raw[3]&bitNoCheck
	clear(a.out[4:headerSize])
	if q.end > headerSize && q.end <= len(q.raw) {
		a.out[5] = 1
		a.out = append(a.out, q.raw[headerSize:q.end]...)
	}
	if q.edns {
		a.limit -= optSize
	}
	return a
}

// add appends a record about the name that was asked for; one that does not
// fit cuts the answer.
func (a *answer) add(kind uint16, data []byte) {
	if a.full || len(a.out)+12+len(data) > a.limit {
		a.full = true
		a.out[2] |= bitTruncated
		return
	}
	a.count++
	a.out = append(a.out, 0xc0, headerSize) // the name in the question
	a.out = binary.BigEndian.AppendUint16(a.out, kind)
	a.out = binary.BigEndian.AppendUint16(a.out, classINET)
	a.out = binary.BigEndian.AppendUint32(a.out, ttl)
	a.out = binary.BigEndian.AppendUint16(a.out, uint16(len(data)))
	a.out = append(a.out, data...)
}

// finish completes the answer.
func (a *answer) finish(rcode int) []byte {
	a.out[3] |= byte(rcode) & maskRcode
	binary.BigEndian.PutUint16(a.out[6:], a.count)
	if a.q.edns {
		a.out[11] = 1
		a.out = appendOPT(a.out, byte(rcode>>4), a.q.secure)
	}
	return a.out
}

func appendOPT(out []byte, extended byte, secure bool) []byte {
	do := byte(0)
	if secure {
		do = 0x80
	}
	return append(out, 0, 0, typeOPT, ednsSize>>8, ednsSize&0xff, extended, 0, do, 0, 0, 0)
}

// failure is an answer that only says what is wrong.
func (q *query) failure(buf []byte, rcode int) []byte {
	return q.reply(buf, maxMessage).finish(rcode)
}

// addresses answers with the addresses of the family that was asked for, in an
// order that changes, so that clients spread over all of them. Without one the
// answer says that the name exists.
func (q *query) addresses(buf []byte, limit int, addrs []netip.Addr) []byte {
	a := q.reply(buf, limit)
	first := 0
	if len(addrs) > 1 {
		first = rand.IntN(len(addrs))
	}
	for i := range addrs {
		switch addr := addrs[(first+i)%len(addrs)]; {
		case addr.Is4() && q.kind == typeA:
			b := addr.As4()
			a.add(typeA, b[:])
		case addr.Is6() && q.kind == typeAAAA:
			b := addr.As16()
			a.add(typeAAAA, b[:])
		}
	}
	return a.finish(rcodeSuccess)
}

// pointer answers with a name.
func (q *query) pointer(buf []byte, limit int, name string) []byte {
	a := q.reply(buf, limit)
	if data, ok := labels(name); ok {
		a.add(typePTR, data)
	}
	return a.finish(rcodeSuccess)
}

// labels is the form that a name has in a message.
func labels(name string) ([]byte, bool) {
	var out []byte
	for start := 0; start < len(name); {
		end := start
		for end < len(name) && name[end] != '.' {
			end++
		}
		if end-start < 1 || end-start > 63 {
			return nil, false
		}
		out = append(append(out, byte(end-start)), name[start:end]...)
		start = end + 1
	}
	return append(out, 0), len(out) < 255
}

// section of a message that a record is in.
type section int

const (
	answers section = iota
	authority
	additional
)

// record is where a record lies in a message.
type record struct {
	section     section
	kind, class uint16
	// ttl is the offset of that field; data and end bound the record's data.
	ttl, data, end int
}

// records calls visit for each record after the question, until it returns
// false. errMalformed when the counts or lengths do not fit the message.
func records(msg []byte, at int, visit func(record) bool) error {
	for s := answers; s <= additional; s++ {
		for range binary.BigEndian.Uint16(msg[6+2*int(s):]) {
			var ok bool
			if at, ok = skipName(msg, at); !ok || at+10 > len(msg) {
				return errMalformed
			}
			r := record{
				section: s, kind: binary.BigEndian.Uint16(msg[at:]), class: binary.BigEndian.Uint16(msg[at+2:]),
				ttl: at + 4, data: at + 10,
			}
			r.end = r.data + int(binary.BigEndian.Uint16(msg[at+8:]))
			if r.end > len(msg) {
				return errMalformed
			}
			if !visit(r) {
				return nil
			}
			at = r.end
		}
	}
	return nil
}

// skipName returns where a name ends. What a pointer leads to is the reader's
// concern, but it must lead back.
func skipName(msg []byte, at int) (int, bool) {
	for length := 0; at < len(msg); {
		n := int(msg[at])
		switch {
		case n == 0:
			return at + 1, true
		case n >= 0xc0:
			if at+2 > len(msg) {
				return 0, false
			}
			if to := int(binary.BigEndian.Uint16(msg[at:]) & 0x3fff); to < headerSize || to >= at {
				return 0, false
			}
			return at + 2, true
		case n > 63:
			return 0, false
		}
		if length += n + 1; length > 254 {
			return 0, false
		}
		at += n + 1
	}
	return 0, false
}

// sameQuestion reports whether a response is about what was asked: the same
// question, whatever the case of its letters.
func sameQuestion(resp, asked []byte, end int) bool {
	if len(resp) < end || resp[2]&bitResponse == 0 || resp[2]&maskOpcode != 0 || binary.BigEndian.Uint16(resp[4:]) != 1 {
		return false
	}
	for i := headerSize; i < end; i++ {
		if lower(resp[i]) != lower(asked[i]) {
			return false
		}
	}
	return records(resp, end, func(record) bool { return true }) == nil
}

// adapt makes a copy of somebody's response in buf that answers q: its number,
// its spelling of the name, TTLs that are age seconds older, and not longer
// than limit.
func (q *query) adapt(buf, resp []byte, age uint32, limit int) []byte {
	if len(resp) > limit {
		a := q.reply(buf, limit)
		a.out[2] |= bitTruncated
		return a.finish(int(resp[3] & maskRcode))
	}
	out := append(buf[:0], resp...)
	copy(out, q.raw[:2])
	out[2] = out[2]&^bitRecurse | q.raw[2]&bitRecurse
	copy(out[headerSize:q.end], q.raw[headerSize:q.end])
	if age > 0 {
		_ = records(out, q.end, func(r record) bool {
			if r.kind != typeOPT {
				t := binary.BigEndian.Uint32(out[r.ttl:])
				binary.BigEndian.PutUint32(out[r.ttl:], t-min(age, t))
			}
			return true
		})
	}
	return out
}
