#define CALIBRATE_TILE calibrate_tile_baseline
#include "models/networks/calibrate_tile.h"
