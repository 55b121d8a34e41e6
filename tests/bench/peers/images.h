#ifndef PEERS_IMAGES_H
#define PEERS_IMAGES_H
enum { PEER_IMAGES = 8 };
#endif
