#include "models/tool/train_options.h"

/* One text for each part: compilers need not take longer ones than 4095 bytes. */
static const char usage_network[] =
    "usage: hwgq train NETWORK DATA -o OUT.hwgq [options]\n"
    "       hwgq train --resume CHECKPOINT [-o OUT.hwgq] [options]\n"
    "\n"
    "Trains a network and writes it as a .hwgq model.\n"
    "  NETWORK   lenet (28x28 gray images), vgg-small (32x32 color images) or another network that\n"
    "            hwgq new --help names\n"
    "  DATA      a folder or archive (.tar, .tar.xz, .tar.gz, .zip) with train/CLASS/IMAGE and test/CLASS/IMAGE, a folder of\n"
    "            MNIST or Fashion-MNIST IDX files, or a folder of CIFAR-10 binary batches\n"
    "\n"
    "What is trained\n"
    "  --width W            factor on the channels of every hidden layer (default 1)\n"
    "  --weights KIND       binary (with alpha, the mean of |w|) or float (default binary)\n"
    "  --levels KIND        activations: uniform (multiples of one step), free, sign (+1 and -1) or relu (not quantized)\n"
    "                       (default uniform)\n"
    "  --bits N             bits of an activation, 1 to 4: 2^N - 1 levels and 0 (default 2)\n"
    "  --level-count N      or the number of levels beside 0 itself, 1 to 15\n"
    "  --zero WHERE         0, or half: values up to half a step become 0 (default 0)\n"
    "  --step S             of uniform levels (default: the best one for N(0,1), 0.538 for 2 bits, 0.6508 with --zero half)\n"
    "  --backward KIND      derivative of the quantizer: clipped, vanilla or log-tailed ReLU; hard tanh for sign (default "
    "clipped)\n"
    "  --affine yes|no      a scale and an offset to be learned before every activation (default no)\n"
    "  --input CxHxW        size of the network's input (default: the network's usual one)\n"
    "  --initial FILE       begin with the weights of a model or checkpoint of this network, float or quantized\n"
    "  --initializer KIND   or with random ones: uniform within 1/sqrt(inputs), or msra (Gaussian) (default uniform)\n";

static const char usage_how[] =
    "How\n"
    "  --preset NAME        options to start from, which others change: plain (the defaults), paper-cifar, paper-alexnet,\n"
    "                       paper-vgg, paper-resnet (the authors' recipes; the last also for googlenet and darknet-19)\n"
    "  --epochs N           times through the images (default 30)\n"
    "  --batch N            images a step (default 100)\n"
    "  --optimizer NAME     adam or sgd (default adam)\n"
    "  --lr R               highest learning rate (default 0.003)\n"
    "  --classifier-rate F  factor on it in float linear layers (default 0.1)\n"
    "  --momentum M         of sgd (default 0.9)\n"
    "  --weight-decay D     adds D * weight to the gradient (default 0)\n"
    "  --schedule NAME      poly, cosine or constant (default poly)\n"
    "  --power P            of poly: rate * (1 - progress)^P (default 1: a straight line to 0)\n"
    "  --warmup S           share of all steps in which the rate rises from 0 (default 0.05)\n"
    "  --label-smoothing S  share of a label's probability that goes to all classes alike (default 0)\n"
    "  --teacher FILE       learn from this model's answers too, to the same images with the same classes\n"
    "  --distill-weight W   share of the loss that is the teacher's (default 0.5)\n"
    "  --distill-temperature T  divides both networks' class scores there (default 2)\n"
    "  --average D          the model has the average of the weights, of which each step keeps a share D, such as 0.999\n"
    "                       (default 0: off)\n"
    "  --average-epochs N   or the average over the steps of the last N epochs (default 0: off)\n"
    "  --statistics-batches N  batches from which the average's batch statistics are measured (default 100); without an "
    "average,\n"
    "                       those of the weights as they are (default 0: running ones)\n"
    "  --seed N             of everything random (default 1)\n";

static const char usage_images[] =
    "Images\n"
    "  --mirror yes|no      mirror every other image (default yes)\n"
    "  --pad N              shift by up to N pixels each way (default 4)\n"
    "  --zoom Z             enlarge or shrink by a factor of up to 1 + Z (default 0: off)\n"
    "  --crop S             cut away up to this share of each side, anywhere, and enlarge the rest (default 0)\n"
    "  --aspect A           stretch by a factor of up to 1 + A (default 0)\n"
    "  --blur P             blur every other image, by up to P pixels (standard deviation; default 0)\n"
    "  --soften F           shrink every other image by a factor of up to 1 + F and enlarge it again (default 0)\n"
    "  --brightness F       multiply or divide pixels by up to 1 + F (default 0)\n"
    "  --contrast F         the same for differences from the image's mean (default 0)\n"
    "  --saturation F       the same for differences from gray (default 0)\n"
    "  --cutout N           set a square of N pixels a side to the mean (default 0)\n"
    "  --mean M[,M,M]       subtracted from pixels, per channel (default: the mean of the training images)\n"
    "  --scale S[,S,S]      factor on (pixel - mean); 1/64 is understood (default 1/64)\n"
    "  --order NAME         channels of the network: rgb, bgr or gray (default: by the network's input)\n"
    "  --resize N           shorter side of an image before the center is cropped (default 0: the input's size)\n"
    "  --invert yes|no      255 - pixel first (default no)\n"
    "  --limit N            use the first N images only, spread over the classes (default 0: all)\n"
    "  --labels FILE        class names, one a line (default: as the data says)\n"
    "  --no-test            there are no test images\n";

static const char usage_running[] =
    "Running\n"
    "  -o, --output FILE    the model to write (default with --resume OUT.checkpoint: OUT)\n"
    "  --checkpoint FILE    written after every epoch and when interrupted (default: OUTPUT.checkpoint)\n"
    "  --resume FILE        continue from a checkpoint, with its recipe; options given beside it change the recipe (--batch\n"
    "                       only between epochs)\n"
    "  --export-only        with --resume: write the model of the checkpoint, train nothing, need no data\n"
    "  --log FILE           one JSON object a line after every epoch; appended to with --resume\n"
    "  --threads N          default: all processors\n"
    "  --blas-core NAME     kernels of OpenBLAS, such as Haswell or SkylakeX (default: OPENBLAS_CORETYPE, else chosen by CPU)\n"
    "\n"
    "Control-C saves a checkpoint and stops; a second one stops at once.\n";

const char *const *train_options_usage(void) {
  static const char *const parts[] = {usage_network, usage_how, usage_images, usage_running, NULL};
  return parts;
}
