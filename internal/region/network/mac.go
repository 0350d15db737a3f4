package network

import (
	"crypto/sha256"
	"net"
)

// MAC is an interface's hardware address: it follows from the id, so that the
// metadata service and the kernel name the same one without asking each other.
// It is locally administered and unicast, 02:… as EC2's often are.
func MAC(eni string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(eni))
	return net.HardwareAddr{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]}
}
