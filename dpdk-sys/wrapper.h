/*
 * What the `dpdk` crate needs of DPDK's headers, and the few declarations of shim.c.
 *
 * Two kinds of thing are hidden behind names of our own, because DPDK moves them between versions and
 * because bindgen would give them names of its own making (`__bindgen_anon_3`):
 *   - the mbuf's fields are read from Rust at the offsets below (checked by the compiler of this file);
 *   - flags that DPDK defines by macros with casts are repeated as constants.
 */
#ifndef DPDK_SYS_WRAPPER_H
#define DPDK_SYS_WRAPPER_H

#include <stddef.h>
#include <stdint.h>

#include <rte_bus.h>
#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* Where the fields of an mbuf are. */
enum weft_mbuf_layout {
	WEFT_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	WEFT_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	WEFT_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	WEFT_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	WEFT_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	WEFT_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
};

_Static_assert(sizeof(((struct rte_mbuf *)0)->buf_addr) == 8, "buf_addr is read as a pointer");
_Static_assert(sizeof(((struct rte_mbuf *)0)->data_off) == 2, "data_off is read as 16 bits");
_Static_assert(sizeof(((struct rte_mbuf *)0)->nb_segs) == 2, "nb_segs is read as 16 bits");
_Static_assert(sizeof(((struct rte_mbuf *)0)->pkt_len) == 4, "pkt_len is read as 32 bits");
_Static_assert(sizeof(((struct rte_mbuf *)0)->data_len) == 2, "data_len is read as 16 bits");
_Static_assert(sizeof(((struct rte_mbuf *)0)->buf_len) == 2, "buf_len is read as 16 bits");

static const uint16_t WEFT_HEADROOM = RTE_PKTMBUF_HEADROOM;
static const int WEFT_ANY_SOCKET = SOCKET_ID_ANY;
static const unsigned int WEFT_NO_LCORE = LCORE_ID_ANY;

/* Receive side scaling over the fields that tell TCP and UDP flows apart. */
static const uint64_t WEFT_RSS_FLOWS = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;
static const uint64_t WEFT_RX_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t WEFT_TX_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;

/* The calling thread's rte_errno: a thread-local macro. */
int weft_errno(void);
/* The calling thread's lcore, or LCORE_ID_ANY: a thread-local. */
unsigned int weft_lcore_id(void);

/* The CPU's time stamp counter: an inline function. */
uint64_t weft_cycles(void);

/* One call for a burst of packets each; static inline functions in DPDK's headers. */
uint16_t weft_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t weft_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
int weft_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);
/* Frees every segment of a packet but its first, which is the whole packet then. */
void weft_keep_first_segment(struct rte_mbuf *mbuf);

/* The link's speed in Mbit/s and whether it is up; the struct's fields became anonymous in 24.07. */
int weft_link(uint16_t port, uint32_t *mbps, int *up);

/*
 * Collects what EAL logs, so that an error can repeat the line that says why. Between start and stop
 * the log goes to a buffer of fixed size instead of standard error; stop gives its length.
 */
int weft_log_start(void);
size_t weft_log_stop(char *text, size_t size);

#endif
