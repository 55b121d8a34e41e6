#define CALIBRATE_TILE calibrate_tile_avx2
#include "models/networks/calibrate_tile.h"
