#include "loops/numeric.h"

namespace seewhy::SEEWHY_ISA {

namespace {

void stretch(const float* SEEWHY_RESTRICT row, const Sample* SEEWHY_RESTRICT columns, Index width,
             float* SEEWHY_RESTRICT result) {
    for (Index x = 0; x < width; ++x) result[x] = between(row[columns[x].near], row[columns[x].far], columns[x].share);
}

void blend(const float* SEEWHY_RESTRICT above, const float* SEEWHY_RESTRICT below, float share, Index width,
           float* SEEWHY_RESTRICT result) {
    for (Index x = 0; x < width; ++x) result[x] = between(above[x], below[x], share);
}

}  // namespace

const UpsampleLoops upsample_loops = {stretch, blend};

}  // namespace seewhy::SEEWHY_ISA
