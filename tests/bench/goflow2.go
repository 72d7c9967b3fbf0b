// goflow2's own decoder, protobuf producer and format "bin" over the datagrams of a capture, as the official
// binary joins them, without sockets, Kafka or metrics: what it costs is CPU time from the kernel's account.
//
//	goflow2 FILE PASSES     prints messages, packets, bytes and CPU seconds as JSON
//
// Written for tests/bench/flowpeers.py against github.com/netsampler/goflow2/v2 (BSD-3-Clause), which is
// fetched through the Go module proxy; nothing of it is in this repository.
package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/netsampler/goflow2/v2/format"
	_ "github.com/netsampler/goflow2/v2/format/binary"
	"github.com/netsampler/goflow2/v2/producer/proto"
	"github.com/netsampler/goflow2/v2/utils"
)

type totals struct{ Records, Packets, Bytes, Octets uint64 }

type counting struct {
	inner format.FormatInterface
	seen  *totals
}

func (c counting) Format(data interface{}) ([]byte, []byte, error) {
	if flow, ok := data.(*protoproducer.ProtoProducerMessage); ok {
		c.seen.Records++
		c.seen.Packets += flow.Packets
		c.seen.Bytes += flow.Bytes
	}
	return c.inner.Format(data)
}

type nowhere struct{ seen *totals }

func (n nowhere) Send(key, data []byte) error {
	n.seen.Octets += uint64(len(data))
	return nil
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func cpu() float64 {
	var used syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return float64(used.Utime.Sec+used.Stime.Sec) + float64(used.Utime.Usec+used.Stime.Usec)/1e6
}

func main() {
	runtime.GOMAXPROCS(1)
	whole, err := os.ReadFile(os.Args[1])
	must(err)
	passes, err := strconv.Atoi(os.Args[2])
	must(err)
	var messages []utils.Message
	for at := 24; at+16 <= len(whole); {
		size := int(binary.LittleEndian.Uint32(whole[at+8:]))
		frame := whole[at+16 : at+16+size]
		when := time.Unix(int64(binary.LittleEndian.Uint32(whole[at:])), 0)
		at += 16 + size
		from := netip.AddrFrom4([4]byte(frame[26:30]))
		port := binary.BigEndian.Uint16(frame[34:])
		messages = append(messages, utils.Message{
			Src: netip.AddrPortFrom(from, port), Payload: frame[42:], Received: when,
		})
	}
	var none *protoproducer.ProducerConfig
	compiled, err := none.Compile()
	must(err)
	producing, err := protoproducer.CreateProtoProducer(compiled, protoproducer.CreateSamplingSystem)
	must(err)
	form, err := format.FindFormat("bin")
	must(err)
	seen := &totals{}
	pipe := utils.NewNetFlowPipe(&utils.PipeConfig{
		Format: counting{form, seen}, Transport: nowhere{seen}, Producer: producing,
	})
	began := cpu()
	for pass := 0; pass < passes; pass++ {
		for i := range messages {
			must(pipe.DecodeFlow(&messages[i]))
		}
	}
	used := cpu() - began
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"records": seen.Records, "packets": seen.Packets, "bytes": seen.Bytes, "octets": seen.Octets,
		"cpu_s": used,
	}))
}
